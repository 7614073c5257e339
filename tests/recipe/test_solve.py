"""Bisection and settings, with answers worked out by hand."""

from __future__ import annotations

from math import inf
from pathlib import Path

import pytest
import yaml

from vtc_cli.core.errors import UsageError
from vtc_cli.recipe.knobs import (
    Knob,
    all_knobs,
    exponent_at,
    groups,
    named_knobs,
    rounded,
    settings_at,
    with_settings,
)
from vtc_cli.recipe.load import Recipe, load_recipe
from vtc_cli.recipe.schema import Reference
from vtc_cli.recipe.solve import Approach, Target, UnreachableError, approach
from vtc_cli.recipe.write import solved_text


def knob(declared: float | tuple[float, ...] | None, **other: object) -> Knob:
    fields = {"fewest": 0.0, "most": 1.0, "whole": False} | other
    return Knob(0, "a.b", "prefill", "c", declared, **fields)  # type: ignore[arg-type]


def recipe_of(folder: Path, text: str) -> Recipe:
    path = folder / "own.yaml"
    path.write_text(text, encoding="utf-8")
    return load_recipe(path)


def names(knobs: list[Knob]) -> list[str]:
    return [one.name for one in knobs]


def test_a_share_goes_to_its_power() -> None:
    half = knob(0.5)
    assert half.at(1) == 0.5
    assert half.at(2) == 0.25
    assert half.at(0) == 1.0
    assert half.at(inf) == 1e-6  # never exactly nothing
    assert knob((0.5, 0.25, 0.125)).at(2) == (0.25, 0.0625, 0.015625)


def test_a_threshold_runs_against_its_number() -> None:
    """0.001 of 1 (fewest) to 0 (most) stands at 0.999; 0.999 squared leaves 0.001999."""
    threshold = knob(0.001, fewest=1.0, most=0.0)
    assert threshold.at(1) == pytest.approx(0.001)
    assert threshold.at(2) == pytest.approx(0.001999)
    assert threshold.at(0) == 0.0
    assert threshold.at(inf) == pytest.approx(1.0, abs=1e-5)


def test_a_count_runs_over_whole_numbers() -> None:
    """64 of 1..576 stands at 63/575; its square is 6.9 above 1."""
    count = knob(64, fewest=1, most=576.0, whole=True)
    assert [count.at(p) for p in (0, 1, 2, inf)] == [576, 64, 8, 1]
    assert isinstance(count.at(2), int)


def test_what_stands_at_an_end_begins_in_the_middle() -> None:
    assert knob(1.0).at(1) == 0.5
    assert knob(None, fewest=1, most=577.0, whole=True).at(1) == 289
    assert knob((1.0, 0.5)).at(2) == (1.0, 0.25)  # unless it stands in a row with others


def test_places_run_from_fewest_to_most() -> None:
    assert [exponent_at(place) for place in (0.0, 0.25, 0.5, 1.0)] == [inf, 3.0, 1.0, 0.0]


def test_bisection_finds_a_value_and_tells_its_trail() -> None:
    went = approach(lambda place: place**2, Target(0.25, 0.0), close=0.0, probes=50)
    assert went.nearest(0.25) == 0.5
    assert len(went.trail) == 3  # both ends and the middle
    assert went.trail == ((0.0, 0.0), (0.5, 0.25), (1.0, 1.0))


def test_bisection_ends_at_a_step() -> None:
    """A count jumps from 3 to 5 at 0.6; 4 lies between, both are as near, fewer are taken."""
    went = approach(lambda place: 3 if place < 0.6 else 5, Target(4, 0.5), close=0.5, probes=100)
    assert went.low < 0.6 <= went.high
    assert went.high - went.low < 1e-15
    assert went.nearest(4) < 0.6


def test_a_target_out_of_reach_names_the_ends() -> None:
    with pytest.raises(UnreachableError) as caught:
        approach(lambda place: 10 + place, Target(9.4, 0.5), close=0.5, probes=9)
    assert (caught.value.low, caught.value.high) == (10, 11)
    near = approach(lambda place: 10 + place, Target(9.5, 0.5), close=0.5, probes=9)
    assert near.nearest(9.5) == 0.0


def test_a_fall_is_seen() -> None:
    assert not Approach(0, 1, ((0.0, 1.0), (0.5, 0.6), (1.0, 2.0))).falls(0.5)
    assert Approach(0, 1, ((0.0, 1.0), (0.5, 0.4), (1.0, 2.0))).falls(0.5)


def test_an_overruled_share_is_no_knob(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, "name: x\nprefill:\n  - fastv.last_row: {tokens: 72}\n")
    assert names(all_knobs(recipe, 576, 600)) == ["fastv.last_row.tokens"]
    assert names(all_knobs(load_recipe("fastv"), 576, 600)) == ["fastv.last_row.keep_ratio"]


def test_the_ends_of_a_cache_policy_follow_its_window() -> None:
    (capacity,) = all_knobs(load_recipe("snapkv"), 576, 600)
    assert (capacity.fewest, capacity.most) == (33, 600)


def test_stages_of_the_decoder_are_varied_first(tmp_path: Path) -> None:
    recipe = recipe_of(
        tmp_path,
        "name: x\nencoder:\n  - visionzip.dominant_contextual: {}\n"
        "prefill:\n  - fastv.last_row: {}\ndecode:\n  - streamingllm.attention_sinks: {}\n",
    )
    knobs = all_knobs(recipe, 576, 600)
    first, everything = groups(knobs)
    assert names(first) == ["fastv.last_row.keep_ratio"]
    assert everything == knobs
    assert names(knobs) == [
        "visionzip.dominant_contextual.tokens",
        "fastv.last_row.keep_ratio",
        "streamingllm.attention_sinks.recent_tokens",
    ]
    (only,) = groups(all_knobs(load_recipe("downsample"), 576, 600))
    assert names(only) == ["downsample.shrink.tokens", "average_pool.cells.tokens"]


def test_vary_knows_short_names_and_unset_values() -> None:
    recipe = load_recipe("fastv")
    for spelled in ("fastv.last_row.tokens", "last_row.tokens", "fastv.tokens"):
        (named,) = named_knobs(recipe, [spelled], 576, 600)
        assert (named.name, named.declared) == ("fastv.last_row.tokens", None)
    with pytest.raises(UsageError) as caught:
        named_knobs(recipe, ["fastv.layers"], 576, 600)
    assert caught.value.allowed == "fastv.last_row.keep_ratio, fastv.last_row.tokens"


def test_settings_leave_other_values_and_drop_published_ones() -> None:
    recipe = load_recipe("dart")
    (share,) = all_knobs(recipe, 576, 600)
    changed = with_settings(recipe, {share: 0.25})
    assert changed.stages[0].values == {**recipe.stages[0].values, "keep_ratio": 0.25}
    assert recipe.stages[0].overrides and not changed.stages[0].overrides
    assert recipe.stages[0].values["keep_ratio"] == 0.222


def test_digits_are_rounded_for_shares_only() -> None:
    share, count = knob((0.123456, 0.1)), knob(64, most=10_000.0, whole=True)
    settings = settings_at([share, count], 0.5) | {count: 1234}
    assert rounded(settings, 2) == {share: (0.12, 0.1), count: 1234}


@pytest.mark.parametrize("name", ["fastv", "pyramiddrop", "mustdrop", "metok", "snapkv", "uniform"])
def test_a_written_recipe_is_read_back(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    knobs = all_knobs(recipe, 576, 600)
    changed = with_settings(recipe, settings_at(knobs, 0.4))
    reference = Reference(llm_layers=12, vision_layers=12) if name == "fastv" else None
    text = solved_text(changed, "own-1", "a test: yes", notes=["a word " * 40], reference=reference)
    path = tmp_path / "solved.yaml"
    path.write_text(text, encoding="utf-8")
    read = load_recipe(path)
    assert [(use.name, use.values) for use in read.stages] == [
        (use.name, use.values) for use in changed.stages
    ]
    assert read.file.default_budget is None and not read.file.budgets
    assert read.file.source["solved"] == "a test: yes" and "budgets" not in read.file.source
    assert read.file.positions == recipe.file.positions
    assert read.file.reference == (reference or recipe.file.reference)
    assert all(line.startswith("#") or len(line) < 130 for line in text.splitlines())
    assert yaml.safe_load(text)["name"] == "own-1"
