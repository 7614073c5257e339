"""The result of `vtc analyze`: curves as data, under the same contract as the result of a run.

Fields may be added, never renamed. A figure that was not measured is null, never 0.
"""

from __future__ import annotations

from typing import Any, Literal

from vtc_cli.report.result import (
    Block,
    Head,
    InformationLayer,
    InputBlock,
    ModelBlock,
    RecipeBlock,
)

Curve = Literal["layers", "tokens", "heads"]


class HeadsBlock(Block):
    """Attention of one layer: each head's mass on visual tokens and its entropy (nats)."""

    layer: int
    mass: list[float]
    entropy: list[float]


class LayerRun(Block):
    """The layers of one run; `door` holds the projected features that enter the decoder.

    `redundancy` is the mean cosine similarity over pairs of rows at the door.
    """

    recipe: RecipeBlock
    door: InformationLayer
    redundancy: float | None
    layers: list[InformationLayer]
    heads: list[HeadsBlock] | None


class PointBlock(Block):
    """One token count of a sweep, mean over the inputs; see `vtc explain sweep`."""

    tokens: int
    kept: float
    rank_first: float
    effective_rank_first: float
    rank_last: float
    effective_rank_last: float
    energy_kept: float
    ics_kept: float
    kl_first_token: float
    top1_agree: float
    answer_nll_delta: float
    exact_match: float
    correct: float | None
    correct_low: float | None
    correct_high: float | None


class Correlation(Block):
    """Spearman's rho, its two-sided p-value, and how many pairs or inputs it rests on."""

    rho: float
    p_value: float
    count: int


class AssociationBlock(Block):
    """How a figure goes with accuracy.

    `across` pairs the means over token counts; `within` is the mean rho over inputs at one count,
    where the common fall of both with the count is gone. Null where a column is constant.
    """

    figure: str
    across: Correlation | None
    within: Correlation | None


class Sweep(Block):
    """One selection over token counts."""

    select: str
    layer: int
    points: list[PointBlock]
    associations: list[AssociationBlock] | None


class DataBlock(Block):
    """The file of a sweep over many inputs."""

    path: str
    sha256: str
    items: int
    answered: int
    match: str


class Analysis(Head):
    """One analysis; `runs` is null for a sweep, `sweeps` is null for the other curves."""

    curve: Curve
    model: ModelBlock
    input: InputBlock | None
    data: DataBlock | None
    matrix: str
    tau: float
    runs: list[LayerRun] | None
    sweeps: list[Sweep] | None
    warnings: list[str]
    error: None
    environment: dict[str, Any]
