"""The result of one run: the JSON contract that scripts outside the project read.

Fields may be added, never renamed. A figure that was not measured is null, never 0.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel, model_validator

from vtc_cli.core.text import all_writable

SCHEMA_VERSION: Literal[1] = 1


class Block(BaseModel):
    """Part of a result; readers ignore fields that they do not know."""

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _writable(cls, values: Any) -> Any:
        """Names of files need not be UTF-8, and what is written is."""
        return all_writable(values)


class ModelBlock(Block):
    """Which model ran and how."""

    id: str
    family: str
    weights: Literal["trained", "pretrained", "random"]
    dtype: str
    device: str
    attention: str
    layers: int
    vision_layers: int


class RecipeStage(Block):
    """A stage with its hyper-parameters as used and as declared on the reference depth."""

    stage: str
    phase: str
    parameters: dict[str, Any]
    declared: dict[str, Any]


class RecipeBlock(Block):
    """Which recipe ran."""

    name: str
    path: str
    sha256: str
    fidelity: str
    positions: str
    stages: list[RecipeStage]


class InputFacts(Block):
    """The picture or video; `timestamps` are the seconds of the frames, null for a picture."""

    path: str
    kind: str
    sha256: str
    width: int
    height: int
    frames: int
    timestamps: list[float] | None


class InputBlock(InputFacts):
    """What was asked about what."""

    question: str


class StageBlock(Block):
    """Visual tokens before and after one stage; `layer` is -1 behind the projector."""

    stage: str
    phase: str
    layer: int
    before: int
    after: int
    note: str
    protected: int


class SpanBlock(Block):
    """Counts of one picture or video of several."""

    original: int
    entering: int
    layer_average: float
    final: int
    requested: float | None


class TurnBlock(Block):
    """A further question on the same cache; times are those of one pass."""

    question: str
    prompt_tokens: int
    answer: str
    answer_tokens: int
    ttft_ms: float
    decode_per_token_ms: float | None


class TokensBlock(Block):
    """Counts of visual tokens; `gap` is achieved minus requested layer average.

    `leaving_average` is the mean over layers of what leaves each layer.
    """

    original: int
    entering: int
    layer_average: float
    leaving_average: float
    final: int
    text: int
    requested: float | None
    gap: float | None
    per_layer: list[int]
    by_stage: list[StageBlock]
    by_span: list[SpanBlock] = Field(default_factory=list)


class KvBlock(Block):
    """Key/value cache after the prompt and the cache policies.

    `entries_per_layer` and, of them, `text_entries_per_layer` are means over heads. A budget that
    cache policies follow is `requested`, in what `counts` says, a layer and head; `gap` is achieved
    minus requested, mean over layers.
    """

    bytes: int
    full_bytes: int
    entries_per_layer: list[float]
    text_entries_per_layer: list[float] | None
    counts: Literal["cache_entries", "visual_entries"] | None
    requested: float | None
    gap: float | None


class FullFlops(Block):
    """Operations of the uncompressed model, one multiply-add = 2."""

    vision: int
    projector: int
    prefill: int
    decode_step: int


class CompressedFlops(FullFlops):
    """Operations of this run and, apart, of the compression itself."""

    compression: int


class FlopsBlock(Block):
    """Operations; `prefill_ratio` is compressed over full, without the compression."""

    full: FullFlops
    compressed: CompressedFlops
    prefill_ratio: float


class SpreadBlock(Block):
    """Spread of each time over the passes: half the inter-quartile range or half the range."""

    kind: Literal["half_iqr", "half_range"]
    vision: float | None
    compression: float | None
    prefill: float | None
    ttft: float | None
    decode_per_token: float | None
    policies_per_token: float | None
    total: float | None


class FirstTokenShares(Block):
    """Shares of the time to the first token; they sum to 1."""

    vision: float
    compression: float
    prefill: float


class TimeBlock(Block):
    """Medians in milliseconds over `repeats` passes."""

    vision: float | None
    compression: float | None
    prefill: float | None
    ttft: float | None
    decode_per_token: float | None
    policies_per_token: float | None
    total: float | None
    repeats: int
    spread: SpreadBlock | None
    outlier_passes: list[int]
    first_token_shares: FirstTokenShares | None


class MemoryBlock(Block):
    """Largest memory in use during the pass."""

    peak_bytes: int | None
    kind: Literal["cuda", "rss"]


class InformationLayer(Block):
    """Figures of one decoder layer; `rank` counts singular values above `tau` x the largest.

    `attention_mass` is the share of attention that the text behind the picture gives to visual
    tokens, `attention_entropy` (nats) how evenly it is spread over them, both means over heads.
    """

    layer: int
    tokens: int
    rank: int | None
    effective_rank: float | None
    stable_rank: float | None
    energy_rank: int | None
    nuclear_norm: float | None
    tau: float | None
    attention_mass: float | None
    attention_entropy: float | None


class StageInformationBlock(Block):
    """Information kept after one stage; energy is null for a stage inside the tower."""

    stage: str
    phase: str
    layer: int
    energy_kept: float | None
    ics_kept: float


class InformationBlock(Block):
    """Information kept of the full model's (null without a baseline) and figures a layer.

    `layers` is null unless the layers were looked at.
    """

    energy_kept: float | None
    ics_kept: float | None
    by_stage: list[StageInformationBlock] | None
    layers: list[InformationLayer] | None


class FidelityBlock(Block):
    """How close the answer is to the full model's."""

    kl_first_token: float | None
    top1_agree: bool | None
    answer_nll_delta: float | None
    exact_match: bool | None


class Measured(Block):
    """The blocks that are measured alike for a run and for its baseline."""

    answer: str
    answer_tokens: int
    tokens: TokensBlock
    kv: KvBlock
    flops: FlopsBlock
    time_ms: TimeBlock | None
    memory: MemoryBlock
    information: InformationBlock | None


class BaselineBlock(Measured):
    """The full model on the same input."""

    fidelity: FidelityBlock


class TokensFileBlock(Block):
    """The file that the visual tokens came from; no vision tower ran.

    `question`, `seed` and `stopped_after` are those under which the file was made.
    """

    path: str
    sha256: str
    created: str
    entering: int
    protected: int
    question: str | None
    seed: int
    stopped_after: str | None


class ErrorBlock(Block):
    """Why a job failed."""

    type: str
    message: str


class Head(Block):
    """Which command made this line and when."""

    command: str
    schema_version: Literal[1]
    created: str
    argv: list[str]
    seed: int


class Result(Head, Measured):
    """One run."""

    model: ModelBlock
    recipe: RecipeBlock
    input: InputBlock
    more_inputs: list[InputFacts] = Field(default_factory=list)
    tokens_file: TokensFileBlock | None = None
    turns: list[TurnBlock] = Field(default_factory=list)
    baseline: BaselineBlock | None
    verdict: str
    warnings: list[str]
    error: None
    environment: dict[str, Any]


class JobBlock(Block):
    """The job that a line of a batch answers; what an unreadable job does not say is null.

    Attributes:
        line: its line in the jobs file, from 1.
        key: hash of all that shapes the answer; a job with this key is done.
        media: as the jobs file has it.
        expected: the job's `answer`.
        correct: whether the model's answer is the expected one, by the job's `match`.
        asked: model, recipe, budget, seed and the other settings that `key` covers.
    """

    line: int
    key: str
    media: str | None
    question: str | None
    expected: str | None
    category: str | None
    correct: bool | None
    asked: dict[str, Any]


class Keyed(Block):
    """What each line of a batch begins with; `id` is the job's own, or made of its `key`."""

    id: str | None
    job: JobBlock


class BatchResult(Result, Keyed):
    """The line of a batch job that was answered: a whole result and its job."""


class Failure(Head, Keyed):
    """The line of a batch job that failed."""

    error: ErrorBlock


class BatchLine(RootModel[BatchResult | Failure]):
    """Any line of a results file."""
