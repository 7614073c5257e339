"""Which hyper-parameters meet a budget: bisection over counts, by arithmetic or by passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from vtc_cli.core.errors import BudgetError, VtcError
from vtc_cli.recipe.counting import Counted, DataDependentError
from vtc_cli.recipe.knobs import Knob, Settings, Value, rounded, settings_at, with_settings
from vtc_cli.recipe.load import Recipe

ARITHMETIC_PROBES = 64
BOUNDARY_PROBES = 30
LONGEST_DIGITS = 17  # significant digits that tell every float from its neighbours


class UnreachableError(BudgetError):
    """A target outside what the hyper-parameters reach; `low` and `high` are their ends."""

    def __init__(self, target: float, low: float, high: float) -> None:
        super().__init__(f"{target:g} lies outside {low:g}..{high:g}")
        self.low, self.high = low, high


@dataclass(frozen=True)
class Target:
    """What is asked for.

    Attributes:
        value: wanted mean.
        tolerance: how far beside it is as good as met.
    """

    value: float
    tolerance: float


@dataclass(frozen=True)
class Approach:
    """How a bisection went.

    Attributes:
        low: last place that lies at or under the target.
        high: last place above it.
        trail: every place and its value, by place.
    """

    low: float
    high: float
    trail: tuple[tuple[float, float], ...]

    def nearest(self, target: float) -> float:
        """The place whose value is nearest to the target, the lower one on ties."""
        return min(self.trail, key=lambda step: (abs(step[1] - target), step[0]))[0]

    def falls(self, tolerance: float) -> bool:
        """Whether a value goes down by more than `tolerance` from one place to the next."""
        return any(after < before - tolerance for (_, before), (_, after) in pairwise(self.trail))


def approach(
    value_at: Callable[[float], float],
    target: Target,
    *,
    close: float,
    probes: int,
    lowest: float = 0.0,
) -> Approach:
    """Bisect places in 0..1 for the one whose value is the target; values grow with the place.

    Args:
        value_at: the value of a place.
        target: what is wanted.
        close: end as soon as a value is no further away.
        probes: the most places to look at, both ends included.
        lowest: place to begin at.

    Raises:
        UnreachableError: the target lies outside the ends by more than its tolerance.
    """
    low, high = lowest, 1.0
    trail = {place: value_at(place) for place in (low, high)}
    if not trail[low] - target.tolerance <= target.value <= trail[high] + target.tolerance:
        raise UnreachableError(target.value, trail[low], trail[high])
    while len(trail) < probes and min(abs(v - target.value) for v in trail.values()) > close:
        middle = (low + high) / 2
        if middle in trail:
            break
        trail[middle] = value_at(middle)
        low, high = (middle, high) if trail[middle] <= target.value else (low, middle)
    return Approach(low, high, tuple(sorted(trail.items())))


@dataclass(frozen=True)
class Arithmetic:
    """A recipe whose counts numbers alone tell.

    Attributes:
        recipe: with the hyper-parameters of its file.
        count: what a recipe leaves.
        measure: the measure of it that is asked for.
    """

    recipe: Recipe
    count: Callable[[Recipe], Counted]
    measure: Callable[[Counted], float]

    def solve(self, knobs: Sequence[Knob], target: Target) -> Settings:
        """The settings of `knobs` that come nearest, in as few digits as leave the same.

        Raises:
            UnreachableError: no setting reaches the target.
            DataDependentError: numbers alone do not tell.
        """
        found = approach(
            lambda place: self._value(settings_at(knobs, place)),
            target,
            close=0.0,
            probes=ARITHMETIC_PROBES,
            lowest=self.lowest(knobs),
        )
        settings = settings_at(knobs, found.nearest(target.value))
        other = settings_at(knobs, found.high)
        return self._shortened(self._mixed(settings, other, target.value))

    def lowest(self, knobs: Sequence[Knob]) -> float:
        """The lowest place whose counts numbers alone tell.

        Below it a rule may have to choose among tokens that are protected, for instance.

        Raises:
            DataDependentError: there is none.
        """
        try:
            self.counted(settings_at(knobs, 0.0))
            return 0.0
        except DataDependentError:
            low, high = 0.0, 1.0
            self.counted(settings_at(knobs, high))
        for _ in range(BOUNDARY_PROBES):
            middle = (low + high) / 2
            try:
                self.counted(settings_at(knobs, middle))
                high = middle
            except DataDependentError:
                low = middle
        return high

    def counted(self, settings: Settings) -> Counted:
        """What is left under `settings`."""
        return self.count(with_settings(self.recipe, settings))

    def _value(self, settings: Settings) -> float:
        return self.measure(self.counted(settings))

    def _mixed(self, settings: Settings, other: Settings, target: float) -> Settings:
        """Values that round up at one place need not go there together: take over single ones."""
        best = abs(self._value(settings) - target)
        for knob in reversed(list(settings)):
            for changed in _taken_over(settings[knob], other[knob]):
                tried = {**settings, knob: changed}
                gap = self._gap(tried, target)
                if gap is not None and gap < best:
                    settings, best = tried, gap
        return settings

    def _gap(self, settings: Settings, target: float) -> float | None:
        """Distance from the target, None for settings that a stage refuses."""
        try:
            return abs(self._value(settings) - target)
        except VtcError:
            return None

    def _shortened(self, settings: Settings) -> Settings:
        """The fewest digits that leave the same everywhere."""
        wanted = self.counted(settings)
        for digits in range(1, LONGEST_DIGITS):
            short = rounded(settings, digits)
            try:
                if self.counted(short) == wanted:
                    return short
            except VtcError:
                continue
        return settings


def _taken_over(value: Value, other: Value) -> list[Value]:
    """`value` with one of its parts taken from `other`, the last part first."""
    if not isinstance(value, tuple) or not isinstance(other, tuple):
        return [other]
    return [
        (*value[:place], other[place], *value[place + 1 :])
        for place in reversed(range(len(value)))
        if other[place] != value[place]
    ]
