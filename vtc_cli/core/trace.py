"""The trace: everything that happened in one run; metrics read it and never the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from vtc_cli.core.decision import Decision
from vtc_cli.core.layout import Layout
from vtc_cli.core.plan import Plan
from vtc_cli.core.shape import ModelShape, TowerInput, TowerPass
from vtc_cli.core.stage import Phase


@dataclass(frozen=True)
class ModelFacts:
    """Which model ran and how.

    Attributes:
        id: what the user asked for (`tiny`, a folder, a hub id).
        family: adapter name.
        weights: `trained` (ships here), `pretrained` (a checkpoint) or `random`.
        dtype: for instance `float32`.
        device: for instance `cpu`.
        attention: attention implementation, for instance `sdpa`.
        shape: sizes.
    """

    id: str
    family: str
    weights: str
    dtype: str
    device: str
    attention: str
    shape: ModelShape


@dataclass(frozen=True, eq=False)
class StageRecord:
    """One decision as it was applied.

    Attributes:
        stage: recipe name of the stage.
        phase: encoder, prefill or decode.
        layer: layer at whose input it acted; -1 after the projector.
        before: visual tokens (cache policies: visual entries a head) before.
        after: the same after.
        decision: what was decided (for a per-head policy, that of head 0).
        holder: (N0,) int64, for every original visual token the row that holds it afterwards,
            -1 if it is gone; None for cache policies.
        anchor: (K,) int64, original token whose place each surviving visual token takes.
        protected_tokens: visual tokens marked as protected afterwards.
        decision_ms: time of `decide` without its signals.
        signal_ms: time of its signals.
        signal_flops: operations of its signals, and those of decisions that `decision` leaves out
            (of other heads, of other steps).
        signals: names of the signals it asked for.
        steps: 0 for one decision; for a cache policy that follows decoding the decisions after
            generated tokens that are joined here: `before` that of the first, `decision` the last
            one that changed something, costs those of all.
    """

    stage: str
    phase: Phase
    layer: int
    before: int
    after: int
    decision: Decision
    holder: Tensor | None
    anchor: Tensor
    protected_tokens: int
    decision_ms: float
    signal_ms: float
    signal_flops: int
    signals: tuple[str, ...]
    steps: int = 0


@dataclass
class Timings:
    """Milliseconds of one pass; `decode_ms` has one entry a generated token after the first.

    `vision_ms` is tower and projector, `prefill_ms` the decoder over the prompt and `ttft_ms` the
    time from the encoder's start to the first token; signals and decisions are inside these and
    listed once more in `compression_ms`. Where the tokens were given, no tower runs: `vision_ms` is
    None and `ttft_ms` begins when they enter. `policies_ms` is what each of `decode_ms` spent on
    cache policies that follow decoding, empty without any. Where several answers were decoded
    together, `total_ms` is None and `decode_ms` empty: a share of a batch is nobody's latency.
    """

    vision_ms: float | None = 0.0
    prefill_ms: float = 0.0
    ttft_ms: float = 0.0
    compression_ms: float = 0.0
    decode_ms: list[float] = field(default_factory=list)
    total_ms: float | None = 0.0
    policies_ms: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Given:
    """Visual tokens that came from outside: neither tower nor encoder stages ran for them.

    Attributes:
        tokens: how many entered the decoder.
        protected_tokens: how many of them were marked as protected.
    """

    tokens: int
    protected_tokens: int


@dataclass(frozen=True, eq=False)
class Turn:
    """A further question about the same pictures, answered on the same cache.

    Attributes:
        question: what was asked.
        prompt_tokens: tokens that were read for it.
        answer_ids: generated token ids.
        answer: their text.
        logits: (T, V) float32, those from which each token was chosen.
        ttft_ms: time from the question to the first token of its answer.
        decode_ms: time of each further token.
    """

    question: str
    prompt_tokens: int
    answer_ids: list[int]
    answer: str
    logits: Tensor
    ttft_ms: float
    decode_ms: list[float]


@dataclass(frozen=True)
class Uncompressed:
    """The prompt that the full model gets, also where a recipe makes another one of it.

    An input stage makes the pictures smaller; a stage that takes the place of the family's own
    pooling sees the frames of a video before it.

    Attributes:
        layout: geometry of its visual tokens.
        tower_inputs: what the tower would see.
        prompt_tokens: its length, visual tokens included.
    """

    layout: Layout
    tower_inputs: tuple[TowerInput, ...]
    prompt_tokens: int


@dataclass
class Trace:
    """Everything that happened in one pass over one input.

    Attributes:
        model: which model ran.
        plan: the stages it ran under.
        layout: geometry of the visual tokens that the first stage behind the input was given; those
            of an unpooled video may be more than the full model has.
        tower_inputs: what the tower would see of this prompt.
        prompt_tokens: length of this prompt, visual tokens included.
        text_tokens: text tokens of the prompt.
        tower: what it did see, empty if it did not run.
        visual_tokens: visual tokens that each decoder layer processed in the prefill.
        visual_by_span: the same for each picture or video of the prompt.
        sequence_tokens: all tokens that each decoder layer processed in the prefill.
        records: every decision in order.
        kv_entries: mean entries a KV head of each layer after prefill and cache policy.
        kv_text_entries: those of them that are text.
        kv_bytes: bytes of these entries over all layers.
        final_kv_entries: the same after the last generated token.
        decode_kv_entries: for each decode step, entries read in each layer.
        answer_ids: generated token ids without the prompt.
        answer: text of the answer.
        turns: further questions on the same cache.
        first_logits: (V,) float32, logits of the first answer token.
        timings: one for each measured pass, the first belongs to the reported decisions.
        peak_bytes: largest memory in use during the pass, None if it could not be measured.
        memory_kind: `cuda` or `rss`.
        captured: matrices asked for by name, empty in an ordinary run: `features` (N, d) of the
            visual tokens at the decoder's door and the `anchor` (N,) of each.
        observed: what an observer kept of each decoder layer, empty without one.
        full_prompt: the prompt of the full model, None where this one is the same.
        given: the tokens that were given in place of the tower's, None in an ordinary run.
        warnings: what the reader must know.
        environment: versions and platform.
    """

    model: ModelFacts
    plan: Plan
    layout: Layout
    tower_inputs: tuple[TowerInput, ...] = ()
    prompt_tokens: int = 0
    text_tokens: int = 0
    tower: list[TowerPass] = field(default_factory=list)
    visual_tokens: list[int] = field(default_factory=list)
    visual_by_span: list[list[int]] = field(default_factory=list)
    sequence_tokens: list[int] = field(default_factory=list)
    records: list[StageRecord] = field(default_factory=list)
    kv_entries: list[float] = field(default_factory=list)
    kv_text_entries: list[float] = field(default_factory=list)
    kv_bytes: int = 0
    final_kv_entries: list[float] = field(default_factory=list)
    decode_kv_entries: list[list[float]] = field(default_factory=list)
    answer_ids: list[int] = field(default_factory=list)
    answer: str = ""
    turns: list[Turn] = field(default_factory=list)
    first_logits: Tensor | None = None
    timings: list[Timings] = field(default_factory=list)
    peak_bytes: int | None = None
    memory_kind: str = "rss"
    captured: dict[str, Tensor] = field(default_factory=dict)
    observed: list[Any] = field(default_factory=list)
    full_prompt: Uncompressed | None = None
    given: Given | None = None
    warnings: list[str] = field(default_factory=list)
    environment: Mapping[str, Any] = field(default_factory=dict)

    @property
    def original_tokens(self) -> int:
        """N0, visual tokens of `layout`, by which decisions count."""
        return self.layout.tokens

    @property
    def uncompressed(self) -> Uncompressed:
        """The prompt of the full model, with which every saving is compared."""
        own = Uncompressed(self.layout, self.tower_inputs, self.prompt_tokens)
        return self.full_prompt or own
