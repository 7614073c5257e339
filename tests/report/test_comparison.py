"""The summary of a comparison: from rows with chosen verdicts to tests, subsets, words, tables."""

from __future__ import annotations

import csv
import io
import re
from itertools import product

import numpy as np
import pytest
from scipy.stats import binomtest

from tests.report.comparisons import a_pass, an_item, head, judged, mask_of
from vtc_cli.core.console import Console
from vtc_cli.core.errors import UsageError
from vtc_cli.metrics.statistics import Paired, items_to_see
from vtc_cli.report.compare.build import summarise
from vtc_cli.report.compare.columns import cost_text
from vtc_cli.report.compare.condition import check_known, failing, parse_condition
from vtc_cli.report.compare.formats import as_csv, as_markdown
from vtc_cli.report.compare.mask import packed
from vtc_cli.report.compare.rows import FailureLine, Rows, matched_budget, rows_of
from vtc_cli.report.compare.summary import Arm, Comparison
from vtc_cli.report.compare.table import answer_note, render
from vtc_cli.report.compare.verdict import verdict
from vtc_cli.report.result import ErrorBlock

COUNT = 60


def verdicts(right: int, total: int = COUNT, start: int = 0) -> list[bool]:
    """`right` items in a row, from `start` on, around the end."""
    return [(number - start) % total < right for number in range(total)]


def summary(rows: Rows) -> Comparison:
    return summarise(rows, argv=["compare"], created="now")


def arm(found: Comparison, name: str) -> Arm:
    return next(one for one in found.arms if one.name == name)


@pytest.fixture(scope="module")
def rows() -> Rows:
    table = {
        ("full", ""): verdicts(50),
        ("good", "4"): verdicts(48),
        ("bad", "4"): verdicts(20),
        ("random", "4"): verdicts(30, start=10),
        ("downsample", "4"): verdicts(40),
    }
    categories = ["colour", "shape"]
    return judged(table, ["good", "bad"], ["4"], ["random", "downsample"], categories=categories)


def test_arms_stand_budget_by_budget_with_their_baselines(rows: Rows) -> None:
    found = summary(rows)
    assert [one.name for one in found.arms] == [
        "full",
        "good 4",
        "bad 4",
        "random 4",
        "downsample 4",
    ]
    assert [one.kind for one in found.arms] == ["full", "recipe", "recipe", "baseline", "baseline"]


def test_accuracies_and_pairs_are_those_of_counting(rows: Rows) -> None:
    found = summary(rows)
    bad = arm(found, "bad 4")
    assert bad.accuracy is not None and bad.against_full is not None
    assert (bad.accuracy.right, bad.accuracy.count) == (20, COUNT)
    interval = binomtest(20, COUNT).proportion_ci(method="wilson")
    assert (bad.accuracy.low, bad.accuracy.high) == pytest.approx((interval.low, interval.high))
    assert bad.against_full.difference == pytest.approx(-30 / COUNT)
    assert (bad.against_full.mine_only, bad.against_full.other_only) == (0, 30)
    assert bad.against_full.p_value == pytest.approx(2 / 2**30)
    # random is right on items 10 to 39, bad on 0 to 19: alone on 10 and on 20 of them.
    versus = bad.against["random"]
    assert (versus.mine_only, versus.other_only) == (10, 20)
    assert versus.p_value == pytest.approx(binomtest(10, 30).pvalue)
    assert bad.by_category["colour"].right == 10 and bad.by_category["shape"].count == 30


def test_the_correction_runs_over_every_test_shown(rows: Rows) -> None:
    found = summary(rows)
    tests = [t for one in found.arms for t in (one.against_full, *one.against.values()) if t]
    assert found.tests == len(tests) == 4 + 2 * 2
    order = sorted(tests, key=lambda test: test.p_value)
    largest = 0.0
    for rank, test in enumerate(order):
        largest = max(largest, min(test.p_value * (len(tests) - rank), 1.0))
        assert test.p_corrected == pytest.approx(largest)


def test_the_hard_subset_is_what_down_sampling_loses(rows: Rows) -> None:
    found = summary(rows)
    assert found.hard_by == "downsample"
    # full is right on 0 to 49, down-sampling on 0 to 39: hard are 40 to 49.
    hard = arm(found, "good 4").hard
    assert hard is not None and (hard.right, hard.count) == (8, 10)
    assert arm(found, "bad 4").hard.right == 0  # type: ignore[union-attr]
    assert arm(found, "downsample 4").hard is None and arm(found, "full").hard is None


def test_the_front_is_that_of_cost_and_accuracy() -> None:
    table = {("full", ""): [True] * 4, ("good", "4"): [True, True, True, False]}
    rows = judged(table, ["good"], ["4"], [], cost=0.5)
    for number, (cost, answer) in enumerate(product((0.4, 0.6), ("yes", "no"))):
        for item in range(4):
            rows.take(a_pass(f"i{item}", f"r{number}", "4", answer, cost=cost))
    names = ["good", "r0", "r1", "r2", "r3"]
    rows.head = head(names, ["4"], [])
    found = summary(rows)
    # r0 is as good as the full model for 0.4: nothing else stands beside it.
    assert [one.name for one in found.arms if one.on_front] == ["r0 4"]


def test_verdicts_say_what_the_tests_say(rows: Rows) -> None:
    found = summary(rows)
    good, bad = (arm(found, f"{name} 4").verdict or "" for name in ("good", "bad"))
    assert "saves 50 % of prefill FLOPs and 60 % of the KV cache" in good
    test = arm(found, "good 4").against_full
    assert test is not None and test.items_needed > COUNT
    assert "no difference shown with 60 items (\u22123.3 points, p = 0.50)" in good
    assert f": {test.items_needed} would be needed to see one of 5 points" in good
    assert "beats random (+30.0 points, p < 0.001)" in good
    assert "the vision tower limits its speed (70 % of the first token)" in good
    assert "first token 2.0x sooner" in good
    assert "loses 50.0 points (p < 0.001);" in bad
    assert "worse than down-sampling (\u221233.3 points, p < 0.001)" in bad
    assert "not shown better than random (\u221216.7 points" in bad
    assert arm(found, "random 4").verdict is None


def test_what_the_correction_takes_away_is_not_claimed(rows: Rows) -> None:
    found = summary(rows)
    good = arm(found, "good 4")
    test = good.against["random"].model_copy(update={"p_value": 0.01, "p_corrected": 0.2})
    assert good.against_full is not None
    own = good.against_full.model_copy(update={"p_value": 0.01, "p_corrected": 0.3})
    unsure = good.model_copy(update={"against": {"random": test}, "against_full": own})
    told = verdict(unsure) or ""
    assert "not shown better than random (+30.0 points, p = 0.20)" in told
    assert "loses" not in told and "no difference shown with 60 items" in told
    enough = own.model_copy(update={"count": own.items_needed})
    told = verdict(unsure.model_copy(update={"against_full": enough})) or ""
    assert "no difference shown" in told and "would be needed" not in told


def test_few_items_carry_no_claim() -> None:
    """Eleven items answered alike: nothing is said to be equal, the count that would show it is."""
    answers = [True] * 5 + [False] * 6
    table = {("full", ""): answers, ("same", "4"): answers}
    told = arm(summary(judged(table, ["same"], ["4"], [])), "same 4").verdict or ""
    needed = items_to_see(0.05, Paired(5, 0, 0, 6))
    assert "no difference shown with 11 items (0.0 points" in told
    assert f": {needed} would be needed to see one of 5 points" in told
    assert "as accurate" not in told


def test_what_reads_alike_makes_no_front() -> None:
    """Costs of 40.01 and 40.04 % are both shown as 40.0 %: the better answers alone are marked."""
    table = {("full", ""): [True] * 4}
    rows = judged(table, [], ["4"], [])
    for name, cost, right in (("a", 0.4001, 2), ("b", 0.4004, 4), ("c", 0.3994, 1)):
        for item in range(4):
            rows.take(a_pass(f"i{item}", name, "4", "yes" if item < right else "no", cost=cost))
    rows.head = head(["a", "b", "c"], ["4"], [])
    found = summary(rows)
    assert [one.name for one in found.arms if one.on_front] == ["b 4", "c 4"]
    assert [cost_text(arm(found, f"{name} 4")) for name in "abc"] == ["40.0 %", "40.0 %", "39.9 %"]


def test_without_answers_closeness_is_compared() -> None:
    rows = Rows(head(["near"], ["4"]))
    chance = np.random.default_rng(0)
    for number in range(12):
        rows.take(an_item(f"i{number}", number, answer=None))
        rows.take(a_pass(f"i{number}", "full", "", "yes"))
        far = float(chance.uniform(0.5, 1.0))
        rows.take(a_pass(f"i{number}", "near", "4", "yes", kl=far / 10))
        rows.take(a_pass(f"i{number}", "random", "4", "no", kl=far))
    found = summary(rows)
    near = arm(found, "near 4")
    assert not found.judged and near.accuracy is None and near.against == {}
    test = near.closer_than["random"]
    assert test.p_value == pytest.approx(2 / 2**12) and test.difference < 0 and found.tests == 1
    assert "beats random (KL \u2212" in (near.verdict or "") and near.on_front
    assert "points" not in (near.verdict or "")


def test_random_weights_have_no_accuracy() -> None:
    table = {("full", ""): [True] * 3, ("good", "4"): [True] * 3, ("random", "4"): [False] * 3}
    found = summary(judged(table, ["good"], ["4"], weights="random"))
    assert found.answered == 0 and all(one.accuracy is None for one in found.arms)
    assert any("random weights" in warning for warning in found.warnings)
    console = Console(file=io.StringIO(), width=120)
    render(found, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for told in (text.strip(), as_markdown(found).strip("*")):
        assert told.startswith("random weights: the answer means nothing")
        assert "accuracy" not in told.replace("no accuracy is given", "")
        assert "same answer" not in told


def test_a_baseline_spends_what_was_achieved() -> None:
    met = a_pass("i", "r", "4", "yes", tokens=4.4)
    missed = a_pass("i", "r", "4", "yes", tokens=5.6)
    free = a_pass("i", "r", "default", "yes", tokens=0.2)
    assert [matched_budget(one) for one in (met, missed, free)] == ["4", "6", "1"]


def test_a_baseline_of_a_cut_cache_has_a_cache_of_that_size() -> None:
    sizes = (2.6, 30.0, 0.4)  # of 8 tokens; into the last not one fits
    cut = [a_pass("i", "r", "64", "yes", tokens=8.0, cache_equivalent=size) for size in sizes]
    assert [matched_budget(one) for one in cut] == ["3", "8", None]


def test_recipes_that_achieve_the_same_share_their_baselines() -> None:
    rows = Rows(head(["a", "b"], ["64"]))
    for number, size in enumerate((2.0, 3.0)):
        rows.take(an_item(f"i{number}", number))
        rows.take(a_pass(f"i{number}", "full", "", "yes"))
        for name in ("a", "b"):
            mine = a_pass(f"i{number}", name, "64", "yes", tokens=8.0, cache_equivalent=size)
            rows.take(mine)
        rows.take(a_pass(f"i{number}", "random", f"{size:g}", "no", tokens=size))
    found = summary(rows)
    assert [one.name for one in found.arms] == ["full", "a 64", "b 64", "random as a 64"]
    assert {name: arm(found, f"{name} 64").against["random"].difference for name in "ab"} == {
        "a": 1.0,
        "b": 1.0,
    }
    assert any("a, b: budgets count cache entries" in note for note in answer_note(found))


def test_recipes_that_keep_the_same_tokens_are_told() -> None:
    rows = Rows(head(["a", "b", "c", "d", "e"], ["4"], baselines=["random"]))
    fates = {"a": [3, 3, 0, 0, 3, 3, 0, 0], "c": [0, 0, 3, 3, 3, 3, 0, 0]}
    for number in range(2):
        rows.take(an_item(f"i{number}", number))
        rows.take(a_pass(f"i{number}", "full", "", "yes"))
        for name in "abc":
            mask = mask_of(fates.get(name, fates["a"]))
            rows.take(a_pass(f"i{number}", name, "4", "yes", mask=mask))
        for name in ("d", "e"):  # these are alike where they are known, once
            mask = mask_of([3] * 8) if number else None
            rows.take(a_pass(f"i{number}", name, "4", "yes", mask=mask))
        rows.take(a_pass(f"i{number}", "random", "4", "yes", mask=mask_of(fates["a"])))
    told = [text for text in summary(rows).warnings if "same tokens" in text]
    assert told == ["a 4 and b 4 kept the same tokens on every item: the same method here"]


def test_items_stand_in_their_order_whichever_worker_ended_first() -> None:
    rows = Rows(head(["a"], ["4"], baselines=()))
    for number, kind in ((2, "c"), (0, "a"), (1, "b")):
        rows.take(an_item(f"i{number}", number, category=kind))
        rows.take(a_pass(f"i{number}", "full", "", "yes"))
        error = ErrorBlock(type="MediaError", message=f"reason {number}")
        rows.take(FailureLine(item=f"i{number}", recipe="a", budget="4", error=error))
    ordered = rows.only(["i0", "i1", "i2"])
    found = summary(ordered)
    assert list(ordered.items) == ["i0", "i1", "i2"]
    assert list(arm(found, "full").by_category) == ["a", "b", "c"]
    assert [failure.item for failure in found.failures] == ["i0", "i1", "i2"]
    read = rows_of(
        [rows.head.model_dump(), *(line.model_dump() for line in rows.items.values())], ""
    )
    assert list(read.items) == ["i0", "i1", "i2"]


def test_a_budget_that_cannot_be_met_is_told_and_is_no_failure() -> None:
    rows = judged({("full", ""): [True] * 3, ("good", "4"): [True] * 3}, ["good", "bad"], ["4"])
    for number, kind in enumerate(("BudgetError", "BudgetError", "MediaError")):
        error = ErrorBlock(type=kind, message=f"reason {number}")
        rows.take(FailureLine(item=f"i{number}", recipe="bad", budget="4", error=error))
    found = summary(rows)
    assert [(one.recipe, one.budget, one.items, one.reason) for one in found.refused] == [
        ("bad", "4", 2, "reason 0")
    ]
    assert [failure.item for failure in found.failures] == ["i2"]
    assert any("bad 4 cannot be had on 2 items: reason 0" in note for note in answer_note(found))


def test_a_recipe_of_no_fixed_budget_meets_baselines_item_by_item() -> None:
    rows = Rows(head(["free"], ["default"]))
    for number, tokens in enumerate((3.0, 5.0)):
        rows.take(an_item(f"i{number}", number))
        rows.take(a_pass(f"i{number}", "full", "", "yes"))
        rows.take(a_pass(f"i{number}", "free", "default", "yes", tokens=tokens))
        for budget in ("3", "5"):
            answer = "no" if budget == f"{tokens:g}" else "yes"
            rows.take(a_pass(f"i{number}", "random", budget, answer, tokens=float(budget)))
    found = summary(rows)
    rival = arm(found, "random as free default")
    assert rival.items == 2 and rival.accuracy is not None and rival.accuracy.right == 0
    assert rival.tokens.layer_average == 4.0
    assert arm(found, "free default").against["random"].difference == 1.0


def test_missing_passes_are_told_and_pairs_are_common() -> None:
    table = {("full", ""): [True] * 5, ("good", "4"): [True] * 5, ("random", "4"): [False] * 5}
    rows = judged(table, ["good"], ["4"])
    del rows.passes["i0", "good", "4"], rows.passes["i1", "random", "4"]
    found = summary(rows)
    assert arm(found, "good 4").items == 4
    assert arm(found, "good 4").against["random"].count == 3
    assert any("not every arm has all 5 items" in warning for warning in found.warnings)


def test_shared_pictures_are_told() -> None:
    table = {("full", ""): [True] * 2, ("good", "4"): [True] * 2, ("random", "4"): [False] * 2}
    rows = judged(table, ["good"], ["4"])
    picture = rows.items["i0"].picture
    rows.take(rows.items["i1"].model_copy(update={"picture": picture}))
    assert any("2 items share 1 pictures" in warning for warning in summary(rows).warnings)


def test_lines_come_back_as_rows(rows: Rows) -> None:
    lines = [rows.head, *rows.items.values(), *rows.passes.values()]
    again = rows_of([line.model_dump(mode="json") for line in lines], "file")
    assert again.passes == rows.passes and list(again.items) == list(rows.items)
    whole = [line.model_dump(mode="json") for line in lines]
    for broken in ([], whole[1:], [*whole, whole[0]], [*whole, {"kind": "pass"}], [{"a": 1}]):
        with pytest.raises(UsageError, match="not the line of a comparison"):
            rows_of(broken, "file")


def test_fates_are_packed_two_bits_each() -> None:
    fates = np.random.default_rng(0).integers(0, 4, 575).astype(np.uint8)
    assert packed(fates) == mask_of(fates.tolist())


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("accuracy_drop > 1", ["good 4", "bad 4"]),
        ("accuracy_drop>=50", ["bad 4"]),
        ("accuracy < 50 and kv_ratio < 0.3", []),
        ("accuracy < 50 and kv_ratio < 0.5 or accuracy == 80", ["good 4", "bad 4"]),
        ("ttft_ms > 1e3", []),
        ("prefill_ratio != .49", []),
        ("hard_accuracy <= 0", ["bad 4"]),
    ],
)
def test_conditions_hold_for_the_recipes_they_should(
    rows: Rows, text: str, names: list[str]
) -> None:
    condition, found = parse_condition(text), summary(rows)
    check_known(condition, found)
    assert [told.partition(":")[0] for told in failing(condition, found)] == names


@pytest.mark.parametrize(
    "text", ["", "accuracy", "accuracy >", "1 > accuracy", "__import__('os')", "accuracy > 1 and"]
)
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no condition"):
        parse_condition(text)


def test_unknown_figures_are_refused_with_the_list() -> None:
    with pytest.raises(UsageError, match="no figure is called 'acuracy'") as caught:
        parse_condition("acuracy > 1")
    assert "accuracy_drop" in (caught.value.allowed or "") and caught.value.hint == "accuracy"
    table = {("full", ""): [True], ("good", "4"): [True], ("random", "4"): [True]}
    blank = summary(judged(table, ["good"], ["4"], weights="random"))
    with pytest.raises(UsageError, match="accuracy is not known for good 4"):
        check_known(parse_condition("accuracy < 1"), blank)


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_the_report_fits_the_terminal(rows: Rows, width: int) -> None:
    console = Console(file=io.StringIO(), width=width)
    render(summary(rows), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= width
    for needed in ("recipe", "accuracy", "good", "random", "Verdicts"):
        assert needed in text
    assert ("not shown at this width" in text) == (width < 120)


def test_csv_has_every_figure_of_every_arm(rows: Rows) -> None:
    found = summary(rows)
    table = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert [row["recipe"] for row in table] == [one.recipe for one in found.arms]
    bad = table[2]
    assert float(bad["accuracy.share"]) == pytest.approx(1 / 3)
    assert float(bad["against.random.p_corrected"]) <= 1
    assert table[0]["against_full.difference"] == "" and bad["on_front"] in ("true", "false")


def test_markdown_tables_are_even(rows: Rows) -> None:
    found = summary(rows)
    for block in re.findall(r"(?:^\|.*\n)+", as_markdown(found), re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1
    assert as_markdown(found).count("- **") == 2
