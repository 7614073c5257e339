"""A plan cut short behind one of its stages."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

from vtc_cli.core.discover import nearest
from vtc_cli.core.errors import UsageError
from vtc_cli.core.plan import Plan, Planned
from vtc_cli.core.stage import EncoderStage

WHERE = "--stage"


@dataclass(frozen=True)
class Stop:
    """The last action of a prefill.

    Attributes:
        layer: decoder layer at whose input it happens.
        place: number of the stage in `Plan.prefill`; stages behind it do not act at that layer.
    """

    layer: int
    place: int


def cut_after(plan: Plan, name: str) -> tuple[Plan, str, Stop | None]:
    """Leave out what would act after stage `name` has acted for the last time.

    Stages keep their hyper-parameters, all of their layers too, and the budget stays what it was,
    so that each decision is that of the whole plan.

    Args:
        plan: the whole plan.
        name: full or short name of an input, encoder or prefill stage.

    Returns:
        The shorter plan without cache policies, the full name of the stage, and the last action in
        the decoder, None if the decoder is not reached.

    Raises:
        UsageError: no such stage, a short name of several, or a cache policy.
    """
    full = _full_name(plan, name)
    if full in {planned.name for planned in plan.input}:
        return replace(plan, encoder=(), prefill=(), decode=()), full, None
    places = [place for place, planned in enumerate(plan.prefill) if planned.name == full]
    if not places:
        encoder = _encoder_until(plan, full)
        return replace(plan, encoder=encoder, prefill=(), decode=()), full, None
    last = max((layer, place) for place in places for layer in plan.prefill[place].stage.layers)
    acting = [
        place
        for place, planned in enumerate(plan.prefill)
        if any((layer, place) <= last for layer in planned.stage.layers)
    ]
    prefill = tuple(plan.prefill[place] for place in acting)
    stop = Stop(last[0], acting.index(last[1]))
    return replace(plan, prefill=prefill, decode=()), full, stop


def _encoder_until(plan: Plan, full: str) -> tuple[Planned[EncoderStage], ...]:
    """Encoder stages up to the last action of stage `full`, in the order of the plan."""
    order = {
        place: (inf if planned.stage.tower_layer is None else planned.stage.tower_layer, place)
        for place, planned in enumerate(plan.encoder)
    }
    last = max(order[place] for place, planned in enumerate(plan.encoder) if planned.name == full)
    return tuple(planned for place, planned in enumerate(plan.encoder) if order[place] <= last)


def _full_name(plan: Plan, name: str) -> str:
    """The one encoder or prefill stage that `name` means."""
    before_decoding = {planned.name for planned in plan.stages if planned.stage.phase != "decode"}
    allowed = ", ".join(sorted(before_decoding)) or f"none: {plan.name} has no such stage"
    meant = {planned.name for planned in plan.stages if name in _names(planned.name)}
    if len(meant) > 1:
        found = f"{name!r} names several stages of {plan.name}"
        raise UsageError(found, where=WHERE, allowed=", ".join(sorted(meant)))
    if not meant:
        near = nearest(name, {*before_decoding, *map(_short, before_decoding)})
        found = f"{plan.name} has no stage {name!r}"
        raise UsageError(found, where=WHERE, allowed=allowed, hint=near)
    (full,) = meant
    if full not in before_decoding:
        found = f"{full} acts while decoding, and nothing is decoded here"
        raise UsageError(found, where=WHERE, allowed=allowed)
    return full


def _names(full: str) -> set[str]:
    return {full, _short(full)}


def _short(full: str) -> str:
    return full.rpartition(".")[2]
