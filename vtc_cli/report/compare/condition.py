"""Conditions of `--fail-if`: NAME OPERATOR NUMBER, joined by `and` and `or`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from vtc_cli.core.discover import nearest
from vtc_cli.core.errors import UsageError
from vtc_cli.report.compare.summary import Arm, Comparison

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
CLAUSE = re.compile(
    r"\s*([a-z0-9_]+)\s*(<=|>=|==|!=|<|>)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)\s*"
)
EXAMPLE = '--fail-if "accuracy_drop > 1 or kl_first_token > 0.1"'

# Where a figure stands in an arm, and its scale: accuracies in percent and percentage points,
# ratios as shares of the full model.
FIGURES: dict[str, tuple[str, float]] = {
    "accuracy": ("accuracy.share", 100),
    "accuracy_drop": ("against_full.difference", -100),
    "accuracy_drop_p": ("against_full.p_corrected", 1),
    "hard_accuracy": ("hard.share", 100),
    "kl_first_token": ("fidelity.kl_first_token", 1),
    "top1_agree": ("fidelity.top1_agree", 100),
    "exact_match": ("fidelity.exact_match", 100),
    "answer_nll_delta": ("fidelity.answer_nll_delta", 1),
    "layer_average": ("tokens.layer_average", 1),
    "entering": ("tokens.entering", 1),
    "final": ("tokens.final", 1),
    "budget_gap": ("tokens.gap", 1),
    "prefill_ratio": ("flops.prefill_ratio", 1),
    "cost_ratio": ("flops.cost_ratio", 1),
    "kv_ratio": ("kv.ratio", 1),
    "ttft_ms": ("time_ms.ttft.median", 1),
    "ttft_speedup": ("time_ms.ttft_speedup", 1),
    "decode_ms": ("time_ms.decode_per_token.median", 1),
    "peak_mb": ("peak_bytes", 1e-6),
}


def figure(arm: Arm, name: str) -> float | None:
    """A figure of an arm by its name in `FIGURES`; None if it was not measured."""
    path, scale = FIGURES[name]
    value: Any = arm
    for part in path.split("."):
        value = None if value is None else getattr(value, part)
    return None if value is None else scale * value


@dataclass(frozen=True)
class Clause:
    """One comparison of a figure with a number."""

    name: str
    sign: str
    number: float

    def holds(self, arm: Arm) -> bool:
        """Whether it is so for an arm that has the figure."""
        value = figure(arm, self.name)
        return value is not None and OPERATORS[self.sign](value, self.number)

    def told(self, arm: Arm) -> str:
        """The figure as it is."""
        return f"{self.name} is {figure(arm, self.name):.4g}"


Condition = tuple[tuple[Clause, ...], ...]  # any of these, each a row of clauses that all hold


def parse_condition(text: str) -> Condition:
    """The condition of a text; `and` binds tighter than `or`.

    Raises:
        UsageError: it is none, or names a figure that there is not.
    """
    alternatives = re.split(r"\bor\b", text)
    return tuple(
        tuple(_clause(part, text) for part in re.split(r"\band\b", alternative))
        for alternative in alternatives
    )


def _clause(part: str, text: str) -> Clause:
    found = CLAUSE.fullmatch(part)
    if found is None:
        raise UsageError(
            f"{part.strip()!r} is no condition",
            where=f"--fail-if {text!r}",
            allowed=f"NAME {' '.join(OPERATORS)} NUMBER, joined by and, or",
            hint=EXAMPLE,
        )
    name, sign, number = found.groups()
    if name not in FIGURES:
        raise UsageError(
            f"no figure is called {name!r}",
            where=f"--fail-if {text!r}",
            allowed=", ".join(FIGURES),
            hint=nearest(name, FIGURES),
        )
    return Clause(name, sign, float(number))


def check_known(condition: Condition, found: Comparison) -> None:
    """See that every recipe has the figures; a figure that is not known must not pass.

    Raises:
        UsageError: one is not known.
    """
    for clause in (clause for alternative in condition for clause in alternative):
        lacking = [arm.name for arm in _recipes(found) if figure(arm, clause.name) is None]
        if lacking:
            raise UsageError(
                f"{clause.name} is not known for {', '.join(lacking)}",
                where="--fail-if",
                allowed="figures that this comparison measures",
                hint="accuracies need --data with answers and trained weights",
            )


def failing(condition: Condition, found: Comparison) -> list[str]:
    """The recipes for which the condition holds, each with the figures that make it hold."""
    told: list[str] = []
    for arm in _recipes(found):
        holding = [row for row in condition if all(clause.holds(arm) for clause in row)]
        if holding:
            figures = dict.fromkeys(clause.told(arm) for row in holding for clause in row)
            told.append(f"{arm.name}: {', '.join(figures)}")
    return told


def _recipes(found: Comparison) -> Sequence[Arm]:
    return [arm for arm in found.arms if arm.kind == "recipe"]
