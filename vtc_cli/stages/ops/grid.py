"""Conditions on the grid of tokens that a stage works over."""

from __future__ import annotations

import torch

from vtc_cli.core.errors import MisfitError
from vtc_cli.core.tokens import TokenTable


def require_whole_grid(tokens: TokenTable, stage: str) -> None:
    """See that every token of the grid is still there, unmoved.

    Raises:
        MisfitError: an earlier stage dropped, merged or moved some.
    """
    count = tokens.layout.tokens
    untouched = torch.arange(count, device=tokens.anchor.device)
    if len(tokens) != count or not torch.equal(tokens.anchor, untouched):
        raise MisfitError(
            f"{len(tokens)} tokens of a grid of {count} are left",
            allowed="the untouched grid",
            hint=f"put {stage} before other encoder stages",
        )
