"""The plan under which the tokens of a file go on: their past given back, their future as usual."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from vtc_cli.core.budget import LayerBudget
from vtc_cli.core.decision import Decision
from vtc_cli.core.errors import TokenFileError, VtcError
from vtc_cli.core.media import Media
from vtc_cli.core.plan import Plan, Planned
from vtc_cli.core.recorded import Recorded
from vtc_cli.media.size import MAX_PIXELS
from vtc_cli.recipe.rebuild import rebuild
from vtc_cli.recipe.schema import PHASES
from vtc_cli.store.head import StagePart
from vtc_cli.store.read import AGAIN, TokenFile


def replay_plan(file: TokenFile, device: torch.device) -> Plan:
    """Encoder stages as they were named, recorded decisions in the prefill, live cache policies.

    Raises:
        TokenFileError: a stage of the encoder or of decoding is not known here any more.
    """
    head, decisions = file.head, file.decisions_on(device)
    planned: dict[str, list[Planned[Any]]] = {name: [] for name in PHASES}
    for number, part in enumerate(head.stages):
        if part.phase == "prefill":
            planned["prefill"].append(_recorded(file, number, part, decisions))
        else:
            planned[part.phase].append(_rebuilt(file, part))
    recipe = head.recipe
    return Plan(
        name=recipe.name,
        path=recipe.path,
        sha256=recipe.sha256,
        fidelity=recipe.fidelity,
        positions=recipe.positions,
        input=tuple(planned["input"]),
        encoder=tuple(planned["encoder"]),
        prefill=tuple(planned["prefill"]),
        decode=tuple(planned["decode"]),
        budget=None if recipe.budget is None else LayerBudget(**recipe.budget.model_dump()),
        requested=recipe.requested,
        warnings=head.warnings,
    )


def blank_media(file: TokenFile) -> Media:
    """A picture of the size of the compressed one, for the geometry of the prompt.

    The pixels are black: nobody looks at them, for no tower runs.

    Raises:
        TokenFileError: a size that no picture has.
    """
    media = file.head.input
    pixels = media.frames * media.height * media.width
    if pixels > MAX_PIXELS:
        found = f"{media.frames} x {media.width} x {media.height} pixels"
        allowed = f"at most {MAX_PIXELS // 1_000_000} million"
        raise TokenFileError(found, where=str(file.path), allowed=allowed)
    return Media(
        frames=np.zeros((media.frames, media.height, media.width, 3), dtype=np.uint8),
        timestamps=media.timestamps,
        kind=media.kind,
        path=media.path,
        sha256=media.sha256,
    )


def _recorded(
    file: TokenFile, number: int, part: StagePart, decisions: tuple[Decision, ...]
) -> Planned[Recorded]:
    """Stage `number` with what it decided; the stage itself need not be known here."""
    mine = [
        (known.layer, decision)
        for known, decision in zip(file.head.decisions, decisions, strict=True)
        if known.place == number
    ]
    stage = Recorded(
        layers=tuple(layer for layer, _ in mine), decisions=tuple(taken for _, taken in mine)
    )
    return Planned(part.stage, stage, part.declared, part.parameters)


def _rebuilt(file: TokenFile, part: StagePart) -> Planned[Any]:
    try:
        return rebuild(part.stage, part.parameters, part.declared)
    except VtcError as error:
        raise TokenFileError(
            f"its stage {part.stage} cannot be used: {error.found}",
            where=str(file.path),
            allowed=error.allowed,
            hint=f"put the stage's file on VTC_PATH, or {AGAIN}",
        ) from error
