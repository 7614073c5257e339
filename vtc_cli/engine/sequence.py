"""The sequence that enters the decoder and how it shrinks on the way down."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vtc_cli.core.decision import Decision
from vtc_cli.core.tokens import TokenTable
from vtc_cli.models.support.prompt import Prompt


@dataclass(frozen=True, eq=False)
class Sequence:
    """Text and visual tokens in the order in which a decoder layer sees them.

    Attributes:
        entry: (n,) int64, logical index of each token: its place in the sequence that entered
            layer 0.
        visual: (N,) int64, places in this sequence of the visual tokens, in table order.
        table: the visual tokens.
        behind: logical index of the first token behind the place of the last original visual token.
    """

    entry: Tensor
    visual: Tensor
    table: TokenTable
    behind: int

    def __len__(self) -> int:
        return int(self.entry.shape[0])

    def shrink(self, decision: Decision, table: TokenTable) -> tuple[Sequence, Tensor]:
        """Apply a decision over the visual tokens.

        Returns:
            The shorter sequence and (m,) int64, the place in the old sequence of each new token.
        """
        kept = self.visual.index_select(0, decision.keep)
        slots = torch.sort(kept).values  # survivors stand, in their order, where survivors stood
        stays = torch.ones(len(self), dtype=torch.bool, device=self.entry.device)
        stays[self.visual] = False
        stays[slots] = True
        source = torch.arange(len(self), device=self.entry.device)
        source[slots] = kept
        place = stays.cumsum(0) - 1
        local = source[stays]
        return replace(self, entry=self.entry[local], visual=place[slots], table=table), local

    def queries_after_visual(self) -> Tensor:
        """(T,) places of the text behind all visual tokens, those that left included."""
        return (self.entry >= self.behind).nonzero()[:, 0]

    def is_visual(self) -> Tensor:
        """(n,) bool."""
        flags = torch.zeros(len(self), dtype=torch.bool, device=self.entry.device)
        flags[self.visual] = True
        return flags


@dataclass(frozen=True, eq=False)
class Entry:
    """What enters the decoder.

    Attributes:
        input_ids: (1, n) with one placeholder a visual token.
        position_ids: (..., 1, n).
        next_position: (..., 1, 1) position of the first generated token: behind the uncompressed
            prompt, or behind this one where its ids were counted anew.
        sequence: the bookkeeping.
    """

    input_ids: Tensor
    position_ids: Tensor
    next_position: Tensor
    sequence: Sequence


def enter(prompt: Prompt, table: TokenTable, *, renumbered: bool) -> Entry:
    """Build the decoder's input from the prompt and the tokens that the encoder left.

    Every token keeps the position id of the uncompressed prompt (a merged token that of its
    anchor) unless `renumbered`, which counts 0, 1, 2, ... over what is left.
    """
    kept = prompt.visual_index.index_select(0, table.anchor)
    stays = torch.ones(prompt.prompt_tokens, dtype=torch.bool, device=kept.device)
    stays[prompt.visual_index] = False
    slots = torch.sort(kept).values
    stays[slots] = True
    source = torch.arange(prompt.prompt_tokens, device=kept.device)
    source[slots] = kept
    source = source[stays]
    positions = prompt.position_ids[..., source]
    following = prompt.position_ids[..., -1:] + 1
    if renumbered:
        counted = torch.arange(source.shape[0], device=kept.device)
        positions = counted.expand_as(positions)
        following = torch.full_like(following, source.shape[0])
    place = stays.cumsum(0) - 1
    sequence = Sequence(
        entry=torch.arange(source.shape[0], device=kept.device),
        visual=place[slots],
        table=table,
        behind=int(stays[: int(prompt.visual_index.max()) + 1].sum()),
    )
    return Entry(prompt.input_ids[:, source], positions, following, sequence)
