"""The hyper-parameters that `vtc recipes solve` varies, moved together by one exponent.

A hyper-parameter that governs how much its stage leaves runs from the value that leaves fewest to
the one that leaves most. Where it stands between them is a share in 0..1, and one exponent p for
all of them takes each share s to s^p: p = 1 is the recipe as it is, a larger p leaves less. Shares
in the steps of a geometric row (1/2, 1/4, 1/8) stay one, which is what a token budget gives too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from vtc_cli.core.counts import Steering
from vtc_cli.core.discover import nearest
from vtc_cli.core.errors import UsageError
from vtc_cli.recipe.load import Recipe, StageUse
from vtc_cli.recipe.parameters import parameters_of

Value = float | tuple[float, ...]
SMALLEST_SHARE = 1e-6  # above zero, for a share of exactly zero would leave nothing at all
MIDDLE = 0.5  # where a hyper-parameter begins that stands at an end of its range, or nowhere


@dataclass(frozen=True)
class Knob:
    """One hyper-parameter of one stage of a recipe.

    Attributes:
        place: number of the stage in `Recipe.stages`.
        stage: its name.
        phase: where it acts.
        parameter: the hyper-parameter.
        declared: its value in the recipe, None if it is not set there.
        fewest: value that leaves fewest.
        most: value that leaves most.
        whole: only whole numbers are allowed.
    """

    place: int
    stage: str
    phase: str
    parameter: str
    declared: Value | None
    fewest: float
    most: float
    whole: bool

    @property
    def name(self) -> str:
        """As `--vary` takes it."""
        return f"{self.stage}.{self.parameter}"

    def at(self, exponent: float) -> Value:
        """The value under an exponent from 0 (leaves most) to infinity (leaves fewest)."""
        if not isinstance(self.declared, tuple):
            return self._moved(self._share(self.declared), exponent)
        return tuple(self._moved(self._inner(value), exponent) for value in self.declared)

    def _share(self, value: float | None) -> float:
        """Where `value` stands, the middle if it stands at an end."""
        share = MIDDLE if value is None else self._inner(value)
        return share if 0.0 < share < 1.0 else MIDDLE

    def _inner(self, value: float) -> float:
        share = (value - self.fewest) / ((self.most - self.fewest) or 1.0)
        return min(max(share, 0.0), 1.0)

    def _moved(self, share: float, exponent: float) -> float:
        moved = max(share**exponent, SMALLEST_SHARE) if share > 0 else 0.0
        value = self.fewest + moved * (self.most - self.fewest)
        return round(value) if self.whole else value


Settings = Mapping[Knob, Value]


def exponent_at(place: float) -> float:
    """The exponent at a place in 0..1: infinite at 0, 1 in the middle, 0 at 1."""
    return float("inf") if place <= 0 else (1 - place) / place


def settings_at(knobs: Sequence[Knob], place: float) -> dict[Knob, Value]:
    """All knobs moved to one place in 0 (leaves fewest) .. 1 (leaves most)."""
    return {knob: knob.at(exponent_at(place)) for knob in knobs}


def rounded(settings: Settings, digits: int) -> dict[Knob, Value]:
    """The same with `digits` significant digits; whole numbers stay."""

    def short(value: float) -> float:
        return value if isinstance(value, int) else float(f"{value:.{digits}g}")

    return {
        knob: tuple(map(short, value)) if isinstance(value, tuple) else short(value)
        for knob, value in settings.items()
    }


def with_settings(recipe: Recipe, settings: Settings) -> Recipe:
    """The recipe with other hyper-parameters and no published ones beside them."""
    stages = [replace(use, overrides={}) for use in recipe.stages]
    for knob, value in settings.items():
        use = stages[knob.place]
        stages[knob.place] = replace(use, values={**use.values, knob.parameter: value})
    return replace(recipe, stages=tuple(stages))


def all_knobs(recipe: Recipe, visual_tokens: int, prompt_tokens: int) -> list[Knob]:
    """Every hyper-parameter that governs how much is left, as the recipe is set."""
    return [
        _knob(
            place, use, name, steers, prompt_tokens if use.cls.phase == "decode" else visual_tokens
        )
        for place, use in enumerate(recipe.stages)
        for name, steers in use.cls(**use.values).steering().items()
    ]


def named_knobs(
    recipe: Recipe, names: Sequence[str], visual_tokens: int, prompt_tokens: int
) -> list[Knob]:
    """The hyper-parameters that `--vary` names, also such as the recipe does not set.

    Raises:
        UsageError: a name of none.
    """
    known: dict[str, list[Knob]] = {}
    for place, use in enumerate(recipe.stages):
        most = prompt_tokens if use.cls.phase == "decode" else visual_tokens
        active = use.cls(**use.values).steering()
        for name, field in use.cls.__dataclass_fields__.items():
            steers = active.get(name) or field.metadata.get("steers")
            if steers is not None:
                knob = _knob(place, use, name, steers, most)
                for spelled in _spellings(use.name):
                    known.setdefault(f"{spelled}.{name}", []).append(knob)
    for name in names:
        if name not in known:
            full = sorted({knob.name for knobs in known.values() for knob in knobs})
            allowed = ", ".join(full) or "none: nothing in this recipe governs a count"
            raise UsageError(f"--vary {name}", allowed=allowed, hint=nearest(name, known))
    found = [knob for name in names for knob in known[name]]
    return list(dict.fromkeys(found))


def groups(knobs: Sequence[Knob]) -> list[list[Knob]]:
    """Which knobs to vary, the first choice first.

    Stages of the decoder do what a budget leaves to do, as under `--budget`; without any, those
    before it; without any, cache policies. If that does not reach, all stages together.
    """
    phases = (("prefill",), ("input", "encoder"), ("decode",))
    parted = [[knob for knob in knobs if knob.phase in phase] for phase in phases]
    first = next((part for part in parted if part), [])
    return [first] if len(first) == len(knobs) else [first, list(knobs)]


def _knob(place: int, use: StageUse, name: str, steers: Steering, most_tokens: int) -> Knob:
    known = parameters_of(use.cls)[name]
    declared: Any = use.values.get(name, known.default)
    most = float(max(most_tokens, 1)) if steers.most is None else steers.most
    whole = _is_whole(known.annotation)
    return Knob(place, use.name, use.cls.phase, name, declared, steers.fewest, most, whole)


def _is_whole(annotation: Any) -> bool:
    """Whether a type has room for whole numbers only."""
    inner = [kind for kind in get_args(annotation) if kind not in (Ellipsis, type(None))]
    return all(map(_is_whole, inner)) if inner else annotation is int


def _spellings(stage: str) -> set[str]:
    return {stage, stage.rpartition(".")[2], stage.partition(".")[0]}
