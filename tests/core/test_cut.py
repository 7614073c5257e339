"""A plan cut behind a stage: what acts before its last action stays, what acts later goes."""

from __future__ import annotations

import pytest

from tests.engine.support import (
    AttentionPrune,
    EveryStepCache,
    KeepAll,
    ProjectedPrune,
    ShrinkingPrune,
    TowerPrune,
)
from vtc_cli.core.budget import LayerBudget
from vtc_cli.core.cut import Stop, cut_after
from vtc_cli.core.errors import UsageError
from vtc_cli.core.plan import Plan, Planned

BUDGET = LayerBudget(10.0, 6, (2, 4))
EARLY, LATE = TowerPrune(vision_layer=1), TowerPrune(vision_layer=3)
BEHIND = ProjectedPrune()
LONG, SHORT = ShrinkingPrune(layers=(2, 4)), AttentionPrune(layers=(2, 3))
CACHE = EveryStepCache()


def plan(*, swapped: bool = False) -> Plan:
    prefill = [Planned("a.long", LONG, {}, {}), Planned("a.short", SHORT, {}, {})]
    return Plan(
        "toy",
        encoder=(
            Planned("b.late", LATE, {}, {}),
            Planned("a.behind", BEHIND, {}, {}),
            Planned("a.early", EARLY, {}, {}),
        ),
        prefill=tuple(reversed(prefill) if swapped else prefill),
        decode=(Planned("a.cache", CACHE, {}, {}),),
        budget=BUDGET,
        requested=10.0,
    )


CUTS = {
    "tower, first": ("early", ["a.early"], [], None),
    "tower, later": ("b.late", ["b.late", "a.early"], [], None),
    "behind the projector": ("behind", ["b.late", "a.behind", "a.early"], [], None),
    "longest": ("long", ["b.late", "a.behind", "a.early"], ["a.long", "a.short"], Stop(4, 0)),
    "shorter": ("a.short", ["b.late", "a.behind", "a.early"], ["a.long", "a.short"], Stop(3, 1)),
}


@pytest.mark.parametrize("case", CUTS)
def test_what_acts_before_the_last_action_stays(case: str) -> None:
    name, encoder, prefill, stop = CUTS[case]
    short, full, found = cut_after(plan(), name)
    assert [planned.name for planned in short.encoder] == encoder
    assert [planned.name for planned in short.prefill] == prefill
    assert short.decode == ()
    assert full.endswith(name)
    assert found == stop
    assert short.budget is BUDGET and short.requested == 10.0


def test_stages_keep_all_their_layers() -> None:
    short, _, stop = cut_after(plan(swapped=True), "short")
    assert [planned.stage for planned in short.prefill] == [SHORT, LONG]
    assert stop == Stop(3, 0)


def test_a_stage_that_would_begin_later_is_gone_and_places_are_counted_anew() -> None:
    late = Planned("a.late", KeepAll(layers=(5,)), {}, {})
    whole = Plan("toy", prefill=(late, *plan().prefill))
    short, _, stop = cut_after(whole, "short")
    assert [planned.name for planned in short.prefill] == ["a.long", "a.short"]
    assert stop == Stop(3, 1)


def test_a_stage_used_twice_ends_with_its_last_use() -> None:
    again = Planned("a.early", TowerPrune(vision_layer=2), {}, {})
    whole = Plan("toy", encoder=(*plan().encoder, again))
    short, _, _ = cut_after(whole, "early")
    assert [planned.name for planned in short.encoder] == ["a.early", "a.early"]


FAULTS = {
    "unknown": ("ealry", "has no stage 'ealry'", "a.behind, a.early, a.long, a.short, b.late"),
    "cache": ("cache", "acts while decoding", "a.behind, a.early, a.long, a.short, b.late"),
    "full name of a cache": ("a.cache", "acts while decoding", "a.early"),
    "module": ("a", "has no stage 'a'", "a.early"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_wrong_name_shows_what_the_recipe_has(case: str) -> None:
    name, found, allowed = FAULTS[case]
    with pytest.raises(UsageError) as caught:
        cut_after(plan(), name)
    assert found in caught.value.found
    assert allowed in str(caught.value.allowed)


def test_the_nearest_name_is_offered() -> None:
    with pytest.raises(UsageError) as caught:
        cut_after(plan(), "ealry")
    assert caught.value.hint == "early"


def test_a_short_name_of_two_stages_is_refused() -> None:
    twin = Planned("b.long", KeepAll(layers=(5,)), {}, {})
    whole = Plan("toy", prefill=(*plan().prefill, twin))
    with pytest.raises(UsageError) as caught:
        cut_after(whole, "long")
    assert caught.value.allowed == "a.long, b.long"
    assert cut_after(whole, "b.long")[1] == "b.long"


def test_a_recipe_without_stages_says_so() -> None:
    with pytest.raises(UsageError) as caught:
        cut_after(Plan("full"), "carve")
    assert "full has no such stage" in str(caught.value.allowed)
