"""The columns of a comparison's tables: a title, a cell for each arm, and who leaves first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len

from vtc_cli.core.terminal import escaped
from vtc_cli.report.compare.summary import Against, Arm, CloserThan, Comparison, Share, Spread
from vtc_cli.report.compare.verdict import MINUS, SURE, signed
from vtc_cli.report.units import significant, size

COST_DECIMALS = 1  # of per cent, in the table, in the plot and for the front
FRONT = "\u25c6"
SURE_MARK = "*"
LEAVES = {"random": 1, "downsample": 2}
SHORT = {"average_pool": "pooling", "downsample": "down-sampling"}
Cell = Callable[[Arm], str]


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        title: over it.
        cell: what stands in it, empty where there is nothing to say.
        leaves: the highest leaves first in a narrow terminal; 0 never does.
        left: whether its text begins at the left.
    """

    title: str
    cell: Cell
    leaves: int = 0
    left: bool = False


def answer_columns(found: Comparison) -> list[Column]:
    """How good the answers are, beside the full model and every baseline."""
    front = Column("", lambda arm: FRONT if arm.on_front else "", left=True)
    return [front, *_names(), *(_judged(found) if found.judged else _distant(found))]


def cost_columns() -> list[Column]:
    """What an arm spends: three counts of tokens, operations, cache, times, memory."""
    return [
        *_names(),
        Column("entering", lambda arm: f"{arm.tokens.entering:.0f}", 6),
        Column("average", lambda arm: f"{arm.tokens.layer_average:.1f}"),
        Column("final", lambda arm: f"{arm.tokens.final:.0f}", 7),
        Column("prefill", lambda arm: _percent(arm.flops.prefill_ratio)),
        Column("+ own cost", cost_text, 8),
        Column("KV cache", lambda arm: _percent(arm.kv.ratio), 1),
        Column("first token", lambda arm: _time(arm.time_ms.ttft), 2),
        Column("sooner", _sooner, 5),
        Column("decode step", lambda arm: _time(arm.time_ms.decode_per_token), 4),
        Column("memory", lambda arm: "" if arm.peak_bytes is None else size(arm.peak_bytes), 3),
    ]


def category_columns(found: Comparison) -> list[Column]:
    """Accuracy by kind of question; none without categories."""
    names = list(dict.fromkeys(name for arm in found.arms for name in arm.by_category))
    if not names:
        return []
    shown = [Column(name, _category(name), 1 + at) for at, name in enumerate(names)]
    return [*_names(), *shown]


def fitted(columns: Sequence[Column], arms: Sequence[Arm], width: int, gap: int) -> list[Column]:
    """The columns that fit into `width`, those that leave first gone; `gap` stands between two."""
    kept = list(columns)
    while sum(_widest(column, arms) + gap for column in kept) - gap > width:
        leaving = max(kept, key=lambda column: column.leaves)
        if leaving.leaves == 0:
            break
        kept.remove(leaving)
    return kept


def _widest(column: Column, arms: Sequence[Arm]) -> int:
    return max(cell_len(escaped(text)) for text in (column.title, *map(column.cell, arms)))


def _names() -> list[Column]:
    return [
        Column("recipe", lambda arm: arm.recipe, left=True),
        Column("budget", lambda arm: arm.budget),
    ]


def _judged(found: Comparison) -> list[Column]:
    """Accuracies and their differences, in percent and points."""
    hard = [Column("hard", lambda arm: share_text(arm.hard), 4)]
    return [
        Column("tokens", lambda arm: f"{arm.tokens.layer_average:.0f}", 6),
        Column("accuracy", lambda arm: share_text(arm.accuracy)),
        Column("95 %", lambda arm: interval_text(arm.accuracy), 7),
        Column("to full", lambda arm: against_text(arm.against_full)),
        Column("p", lambda arm: _p(arm.against_full), 8),
        *(_beside(name, _against(name)) for name in _rivals(found)),
        *(hard if found.hard_by else []),
        *_close(found)[:2],
    ]


def _distant(found: Comparison) -> list[Column]:
    """Distances to the full model, where no answer is known to be right."""
    divergence, *others = _close(found)
    return [
        Column("tokens", lambda arm: f"{arm.tokens.layer_average:.0f}", 6),
        Column(divergence.title, divergence.cell),
        *(_beside(name, _closer(name)) for name in _rivals(found)),
        *others,
    ]


def _beside(name: str, cell: Cell) -> Column:
    """A baseline's column; those that every claim must stand beside leave last."""
    return Column(f"to {SHORT.get(name, name)}", cell, LEAVES.get(name, 3))


def _close(found: Comparison) -> list[Column]:
    """Fidelity; whether answers of random weights are alike says nothing and is left out."""
    same = Column("same answer", lambda arm: _figure(arm, "exact_match", percent=True), 5)
    return [
        Column("KL", lambda arm: _figure(arm, "kl_first_token"), 3),
        Column("top-1", lambda arm: _figure(arm, "top1_agree", percent=True), 9),
        *([] if found.model.weights == "random" else [same]),
        Column("NLL", lambda arm: _figure(arm, "answer_nll_delta"), 10),
    ]


def _rivals(found: Comparison) -> list[str]:
    return [recipe.name for recipe in found.recipes if recipe.baseline]


def share_text(share: Share | None) -> str:
    """An accuracy in percent."""
    return "" if share is None else f"{100 * share.share:.1f}"


def interval_text(share: Share | None) -> str:
    """Its interval in percent."""
    return "" if share is None else f"{100 * share.low:.1f}\u2013{100 * share.high:.1f}"


def against_text(test: Against | None) -> str:
    """A difference in points, marked where the corrected test is sure of it."""
    if test is None:
        return ""
    return signed(100 * test.difference) + (SURE_MARK if test.p_corrected < SURE else " ")


def _p(test: Against | None) -> str:
    if test is None:
        return ""
    return "<0.001" if test.p_corrected < 0.001 else f"{test.p_corrected:.3f}"


def _against(name: str) -> Cell:
    return lambda arm: against_text(arm.against.get(name))


def _closer(name: str) -> Cell:
    def cell(arm: Arm) -> str:
        test: CloserThan | None = arm.closer_than.get(name)
        if test is None:
            return ""
        sign = "+" if test.difference >= 0 else MINUS
        sure = test.p_corrected is not None and test.p_corrected < SURE
        return f"{sign}{significant(abs(test.difference))}" + (SURE_MARK if sure else " ")

    return cell


def _category(name: str) -> Cell:
    return lambda arm: share_text(arm.by_category.get(name))


def _figure(arm: Arm, name: str, *, percent: bool = False) -> str:
    value = None if arm.fidelity is None else getattr(arm.fidelity, name)
    if value is None:
        return ""
    if percent:
        return f"{100 * value:.0f} %"
    return significant(value) if value >= 0 else MINUS + significant(-value)


def cost_text(arm: Arm) -> str:
    """The cost that the Pareto front is drawn over: two arms that read alike cost the same."""
    return f"{100 * arm.flops.cost_ratio:.{COST_DECIMALS}f} %"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _time(time: Spread | None) -> str:
    if time is None:
        return ""
    spread = "" if time.spread is None else f" \u00b1 {significant(time.spread)}"
    return f"{significant(time.median)}{spread} ms"


def _sooner(arm: Arm) -> str:
    speedup = arm.time_ms.ttft_speedup
    return "" if speedup is None else f"{speedup:.2f}x"
