"""What `vtc recipes solve --json` prints; see `result.py` for the rules of the contract."""

from __future__ import annotations

from typing import Literal

from vtc_cli.report.result import Block, Head

MeasureName = Literal["layer_average", "flops", "kv"]


class SolvedModel(Block):
    """The model whose sizes were used."""

    id: str
    family: str
    layers: int
    vision_layers: int


class SolvedRecipe(Block):
    """The recipe that was solved; `stages` are in the order of its file."""

    name: str
    path: str
    sha256: str
    fidelity: str
    stages: list[str]


class SolvedInput(Block):
    """The prompt whose counts were used; of a calibration, its first item.

    `path` is null for a blank picture of `width` x `height`, `question` null where the number of
    text tokens was given.
    """

    path: str | None
    width: int
    height: int
    frames: int
    question: str | None
    visual_tokens: int
    text_tokens: int


class MeasureBlock(Block):
    """One measure; `requested` and `gap`, achieved minus requested, stand at the one asked for.

    `low` and `high` are what the varied hyper-parameters reach, null where that was not looked at.
    Of a calibration `achieved` is the mean over its items, `smallest` and `largest` are of one.
    """

    measure: MeasureName
    requested: float | None
    achieved: float
    gap: float | None
    low: float | None
    high: float | None
    smallest: float | None
    largest: float | None


class VariedBlock(Block):
    """A hyper-parameter that was varied; `declared` is null where the recipe does not set it."""

    stage: str
    phase: str
    parameter: str
    declared: float | list[float] | None
    solved: float | list[float]


class SolvedBudget(Block):
    """The `--budget` under which the recipe as it is comes nearest to the solved one.

    `same_tokens` says whether every layer then processes and caches exactly as much.
    """

    budget: float
    counts: Literal["visual_tokens", "cache_entries", "visual_entries"]
    same_tokens: bool
    layer_average: float
    flops: float
    kv: float


class SolvedTokens(Block):
    """Visual tokens of every decoder layer, and entries a head of its cache behind the prompt."""

    original: int
    per_layer: list[int]
    kv_entries_per_layer: list[int]


class CalibrationBlock(Block):
    """The items that a calibration ran over; `passes` counts prompts that were read."""

    path: str
    sha256: str
    items: int
    probes: int
    passes: int
    monotone: bool
    tolerance: float


class Solution(Head):
    """A solved recipe.

    `tokens` and `budget` are null for a calibration, whose counts differ from item to item, and
    `budget` is null too where the recipe follows none.
    """

    model: SolvedModel
    recipe: SolvedRecipe
    input: SolvedInput
    method: Literal["arithmetic", "calibration"]
    measures: list[MeasureBlock]
    varied: list[VariedBlock]
    budget: SolvedBudget | None
    tokens: SolvedTokens | None
    calibration: CalibrationBlock | None
    solved_recipe: str
    output: str | None
    warnings: list[str]
    error: None
