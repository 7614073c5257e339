"""Which entries of a cache stay: those that must, and the best of the rest."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vtc_cli.core.decision import Decision
from vtc_cli.core.stage import CacheEntries
from vtc_cli.stages.ops.select import top_indices


def ruled_places(entries: CacheEntries, visual_only: bool) -> Tensor:
    """(m,) int64 places of the entries that a policy rules, ascending: all, or the visual ones."""
    if visual_only:
        return entries.visual.nonzero()[:, 0]
    return torch.arange(len(entries), device=entries.index.device)


def fill_up(first: Tensor, scores: Tensor, count: int) -> Tensor:
    """(m,) bool: every entry of `first` and the best of the others until there are `count`.

    Args:
        first: (m,) bool, entries that stay even if they are more than `count`.
        scores: (m,) of all entries; the lowest index wins a tie.
        count: entries wanted.
    """
    keep = first.clone()
    others = (~first).nonzero()[:, 0]
    room = count - (int(first.shape[0]) - int(others.shape[0]))
    keep[others[top_indices(scores[others], room)]] = True
    return keep


def entry_decisions(
    entries: CacheEntries, ruled: Tensor, keeps: Sequence[Tensor], flops: int = 0
) -> tuple[Decision, ...]:
    """One decision a head: what no policy rules stays, and of `ruled` (m,) what `keeps` says.

    Args:
        entries: of the layer.
        ruled: (m,) places of the entries that the policy rules.
        keeps: (m,) bool, one a head or one for all heads.
        flops: operations of all heads together.
    """
    stays = []
    for keep in keeps:
        flags = torch.ones(len(entries), dtype=torch.bool, device=ruled.device)
        flags[ruled] = keep
        stays.append(flags.nonzero()[:, 0])
    note = _note(entries, stays)
    decisions = [Decision.prune(stay, len(entries), note=note, flops=flops) for stay in stays]
    return tuple(decisions) if len(keeps) > 1 else tuple(decisions * len(entries.heads))


def _note(entries: CacheEntries, stays: list[Tensor]) -> str:
    """What a head holds afterwards, in the mean, and how much of it is text."""
    text = sum(int((~entries.visual[stay]).sum()) for stay in stays) / len(stays)
    held = sum(int(stay.shape[0]) for stay in stays) / len(stays)
    return f"{held:.0f} entries a head, {text:.0f} text"
