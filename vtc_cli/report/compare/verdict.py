"""One line a recipe in plain words: what it saves and loses, whom it beats, what bounds it."""

from __future__ import annotations

from collections.abc import Mapping

from vtc_cli.core.words import counted, fixed
from vtc_cli.metrics.latency import FirstToken
from vtc_cli.report.compare.pairs import VISIBLE
from vtc_cli.report.compare.summary import Against, Arm, CloserThan
from vtc_cli.report.units import significant

SURE = 0.05  # of a p-value after the correction
NAMES = {"average_pool": "average pooling", "downsample": "down-sampling"}
MINUS = "\N{MINUS SIGN}"


def verdict(arm: Arm, *, noise: bool = False) -> str | None:
    """The line of a recipe, from its figures alone; None for the full model and baselines.

    Args:
        arm: the recipe at its budget.
        noise: its weights are random, so that what it answers means nothing.
    """
    if arm.kind != "recipe":
        return None
    parts = [_saves(arm), _loses(arm, noise), *_beats(arm), _speed(arm)]
    return "; ".join(part for part in parts if part)


def p_text(value: float) -> str:
    """A p-value as one writes it."""
    exact = value < 0.0095 or 0.045 <= value < 0.055  # so that no p at the limit reads as it
    return "p < 0.001" if value < 0.001 else f"p = {value:.{3 if exact else 2}f}"


def points(share: float) -> str:
    """A difference of accuracies in percentage points, without its sign."""
    value = f"{abs(100 * share):.1f}"
    return f"{value} point{'' if value == '1.0' else 's'}"


def signed(value: float) -> str:
    """One decimal with a sign; zero has none."""
    return fixed(value, 1, signed=True).replace("-", MINUS)


def _saves(arm: Arm) -> str:
    shares = (("prefill FLOPs", arm.flops.cost_ratio), ("the KV cache", arm.kv.ratio))
    saved = [f"{_percent(1 - ratio)} of {name}" for name, ratio in shares if ratio < 0.995]
    return f"saves {' and '.join(saved)}" if saved else "saves neither prefill FLOPs nor KV cache"


def _loses(arm: Arm, noise: bool) -> str:
    test = arm.against_full
    if test is None:
        return _distance(arm, noise)
    if test.p_corrected < SURE:
        deed = "loses" if test.difference < 0 else "gains"
        return f"{deed} {points(test.difference)} ({p_text(test.p_corrected)})"
    seen = f"no difference shown with {counted(test.count, 'item')}"
    told = f"{seen} ({_figures(test)})"
    if test.items_needed <= test.count:
        return told
    return f"{told}: {test.items_needed} would be needed to see one of {100 * VISIBLE:.0f} points"


def _distance(arm: Arm, noise: bool) -> str:
    """How far the answers are from the full model's, where none is known to be right."""
    close = arm.fidelity
    if close is None or close.kl_first_token is None:
        return ""
    told = f"KL {significant(close.kl_first_token)} nats to the full model"
    if arm.items == 1 or noise:
        return told
    return f"{told}, the same answer in {_percent(close.exact_match)} of the items"


def _beats(arm: Arm) -> list[str]:
    """Baselines by outcome, so that those alike share their words."""
    tests: Mapping[str, Against | CloserThan] = arm.against or arm.closer_than
    told: dict[str, list[str]] = {}
    for name, test in tests.items():
        told.setdefault(_outcome(test), []).append(f"{NAMES.get(name, name)} ({_figures(test)})")
    return [f"{outcome} {_listed(names)}" for outcome, names in told.items()]


def _outcome(test: Against | CloserThan) -> str:
    better = test.difference > 0 if isinstance(test, Against) else test.difference < 0
    if test.p_corrected is None:
        on = f" on {counted(test.count, 'item')}"  # too few for a test: of these alone
        if test.difference == 0:
            return f"as close to it{on} as"
        return f"closer to it{on} than" if better else f"farther from it{on} than"
    if test.p_corrected >= SURE:
        return "not shown better than"
    return "beats" if better else "worse than"


def _figures(test: Against | CloserThan) -> str:
    if isinstance(test, Against):
        noun = points(test.difference).partition(" ")[2]
        return f"{signed(100 * test.difference)} {noun}, {p_text(test.p_corrected)}"
    told = f"KL {'+' if test.difference >= 0 else MINUS}{significant(abs(test.difference))}"
    return told if test.p_corrected is None else f"{told}, {p_text(test.p_corrected)}"


def _speed(arm: Arm) -> str:
    """How much sooner the first token comes, and the part that takes longest."""
    time = arm.time_ms
    told = []
    if time.ttft_speedup is not None:
        told.append(_sooner(time.ttft_speedup))
    if time.first_token_shares is not None:
        shares = time.first_token_shares
        part, share = FirstToken(shares.vision, shares.compression, shares.prefill).largest()
        told.append(f"{part} limits its speed ({_percent(share)} of the first token)")
    return "; ".join(told)


def _sooner(speedup: float) -> str:
    if speedup >= 1.05:
        return f"first token {speedup:.1f}x sooner"
    return "first token no sooner" if speedup > 0.95 else f"first token {1 / speedup:.1f}x later"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _listed(names: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
