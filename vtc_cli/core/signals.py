"""Signals: named tensors that stages ask for, computed when asked, once, with their cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NoReturn, get_args

import torch
from torch import Tensor

from vtc_cli.core.budget import LayerBudget
from vtc_cli.core.discover import nearest
from vtc_cli.core.errors import SignalError, StageError
from vtc_cli.core.layout import Layout

Queries = Literal["after_visual", "last"]

SIGNAL_NAMES: Mapping[str, str] = {
    "vision_cls_attention": "(N,) attention of [CLS] to each visual token, head mean",
    "vision_received_attention": "(N,) attention each token receives, mean of heads, queries",
    "vision_features": "(N, d_vision) states that enter the projector",
    "vision_keys": "(N, heads, head_dim) keys of a tower layer",
    "vision_class_state": "(N, d_vision) state of [CLS] beside those that enter the projector",
    "projected_features": "(N, d) visual features at the door of the decoder",
    "frame_relevance": "(F,) likeness of each frame to the text after the visual tokens",
    "text_embeddings": "(T, d) embeddings of the text after the visual tokens",
    "attention_rows": "(heads, Q, N) decoder attention from text rows to the visual tokens",
    "keys": "(kv_heads, N, head_dim) decoder keys of the visual tokens, after RoPE",
    "values": "(kv_heads, N, head_dim) decoder values of the visual tokens",
    "attention_output": "(N, heads x head_dim) joined heads of the visual tokens, before o_proj",
    "attention_projection": "(N, d) the same after o_proj",
    "hidden": "(N, d) decoder layer output of the visual tokens",
    "window_attention": "(heads, W, n) attention of the last W prompt rows to cached entries",
    "received_attention": "(heads, n) attention cached entries received, summed over all queries",
    "text_keys": "(kv_heads, T, head_dim) keys of the text after the visual tokens",
    "normed_hidden": "(N, d) hidden states under the norm at the decoder's end",
    "normed_text": "(T, d) the same of the text after the visual tokens",
    "attention_rows_ahead": "(heads, Q, N) attention rows of the layer to come, worked out ahead",
    "visual_places": "(N,) places of the visual tokens in the sequence that the layer is given",
    "text_places": "(T,) places of the text after the visual tokens in that sequence",
}

# Where the axis of the tokens is not the first, and signals that have none.
TOKEN_AXIS: Mapping[str, int] = {
    "attention_rows": 2,
    "attention_rows_ahead": 2,
    "keys": 1,
    "values": 1,
}
OF_NO_TOKEN = frozenset({"text_embeddings", "text_keys", "normed_text", "text_places"})

# Signals that depend on the question. The others are of the visual tokens alone: these stand before
# the question, and a causal decoder lets them see nothing behind them.
TEXT_SIGNALS = frozenset(
    {
        "text_embeddings",
        "attention_rows",
        "attention_rows_ahead",
        "text_keys",
        "normed_text",
        "text_places",
        "frame_relevance",
        "window_attention",
        "received_attention",
    }
)

# Signals that the engine makes of others: a family that provides those has these too.
DERIVED_SIGNALS: Mapping[str, frozenset[str]] = {
    "frame_relevance": frozenset({"projected_features", "text_embeddings"}),
    "window_attention": frozenset({"attention_rows"}),
    "received_attention": frozenset({"attention_rows"}),
    "attention_rows_ahead": frozenset({"attention_rows"}),
    "text_keys": frozenset({"keys"}),
    "normed_hidden": frozenset({"hidden"}),
    "normed_text": frozenset({"hidden"}),
    "visual_places": frozenset({"hidden"}),
    "text_places": frozenset({"hidden"}),
}


def with_derived(provided: frozenset[str]) -> frozenset[str]:
    """The signals of a family and those that can be made of them."""
    made = {name for name, parts in DERIVED_SIGNALS.items() if parts <= provided}
    return provided | made


@dataclass(frozen=True)
class Produced:
    """What a producer returns.

    Attributes:
        value: the tensor.
        flops: operations it took, 2 a multiply-add.
        source: what it was made of, for signals that can be made in several ways.
    """

    value: Tensor
    flops: int = 0
    source: str = ""


Producer = Callable[..., Produced]
# Scores the frames of one input by its question: (F,) cosines, with their cost and source. It is
# asked anew in every pass, so that what it costs is in the times of each.
FrameScorer = Callable[[], Produced]


@dataclass
class SignalCost:
    """What the signals of one decision cost."""

    ms: float = 0.0
    flops: int = 0
    names: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class SpanCounts:
    """What a stage is told of one picture or video of several; see `Signals`."""

    entering_tokens: int | None
    processed_tokens: tuple[int, ...]
    budget: LayerBudget | None


class Signals:
    """The view that a stage has of the model during one decision.

    Attributes:
        layer: decoder or tower layer at whose input the stage acts, -1 after the projector.
        decoder_layers: D.
        layout: geometry of the original tokens.
        original_tokens: N0.
        entering_tokens: visual tokens that entered decoder layer 0; None before that is known.
        processed_tokens: visual tokens that each decoder layer before this one has processed.
        budget: the layer average asked for, or None.
        cache_budget: entries asked for in each layer's cache, or None.
        prompt_entries: entries that the layer's cache held after the prompt, before any policy;
            None outside the cache.
        generator: seeded source of randomness on the CPU.
        cost: what was spent so far.
    """

    def __init__(
        self,
        producers: Mapping[str, Producer],
        *,
        layout: Layout,
        decoder_layers: int,
        original_tokens: int,
        layer: int = -1,
        entering_tokens: int | None = None,
        processed_tokens: tuple[int, ...] = (),
        budget: LayerBudget | None = None,
        cache_budget: int | None = None,
        prompt_entries: int | None = None,
        seed: int = 0,
        spans: tuple[SpanCounts, ...] = (),
        synchronize: Callable[[], None] = lambda: None,
    ) -> None:
        self._producers = producers
        self._values: dict[tuple[object, ...], Tensor] = {}
        self._sources: dict[str, str] = {}
        self._synchronize = synchronize
        self.layer = layer
        self.decoder_layers = decoder_layers
        self.layout = layout
        self.original_tokens = original_tokens
        self.entering_tokens = entering_tokens
        self.processed_tokens = processed_tokens
        self.budget = budget
        self._spans = spans
        self._seed = seed
        self.cache_budget = cache_budget
        self.prompt_entries = prompt_entries
        self.generator = torch.Generator().manual_seed(seed)
        self.cost = SignalCost()

    def part(self, span: int, rows: Tensor) -> Signals:
        """The same signals for one picture or video of several, whose tokens are `rows` (n,).

        What is computed is computed once for all of them, and its cost is counted here.
        """
        layout, counts = self.layout, self._spans[span]
        first = sum(layout.frames_of(before) for before in range(span))
        frames = torch.arange(first, first + layout.frames_of(span), device=rows.device)
        return Signals(
            {name: self._part_producer(name, rows, frames) for name in self._producers},
            layout=layout.part(span),
            decoder_layers=self.decoder_layers,
            original_tokens=layout.tokens_of(span),
            layer=self.layer,
            entering_tokens=counts.entering_tokens,
            processed_tokens=counts.processed_tokens,
            budget=counts.budget,
            seed=self._seed + span,
        )

    def _part_producer(self, name: str, rows: Tensor, frames: Tensor) -> Producer:
        def produce(**arguments: object) -> Produced:
            whole = self._value(name, **arguments)
            if name not in OF_NO_TOKEN:
                index = frames if name == "frame_relevance" else rows
                whole = whole.index_select(TOKEN_AXIS.get(name, 0), index)
            return Produced(whole, source=self.source_of(name))

        return produce

    def available(self) -> list[str]:
        """Names that can be asked for at this place."""
        return sorted(self._producers)

    def vision_cls_attention(self, layer: int) -> Tensor:
        """(N,) float32: attention of [CLS] to each token in tower layer `layer`, head mean."""
        return self._value("vision_cls_attention", layer=layer)

    def vision_received_attention(self, layer: int) -> Tensor:
        """(N,) float32: attention received in tower layer `layer`, mean over heads and queries."""
        return self._value("vision_received_attention", layer=layer)

    def vision_features(self) -> Tensor:
        """(N, d_vision): the tower states that enter the projector."""
        return self._value("vision_features")

    def vision_keys(self, layer: int) -> Tensor:
        """(N, heads, head_dim): keys of tower layer `layer`."""
        return self._value("vision_keys", layer=layer)

    def vision_class_state(self) -> Tensor:
        """(N, d_vision): for each token [CLS] of its picture, frame or crop.

        It is the state that the tower gives beside those that enter the projector. There is none
        without [CLS], and where the projector reads several states side by side.
        """
        return self._value("vision_class_state")

    def projected_features(self) -> Tensor:
        """(N, d): visual features at the door of the decoder."""
        return self._value("projected_features")

    def frame_relevance(self) -> Tensor:
        """(F,) float32: likeness of each frame to the text that follows the visual tokens."""
        return self._value("frame_relevance")

    def text_embeddings(self) -> Tensor:
        """(T, d): embeddings of the text tokens that follow the visual tokens."""
        return self._value("text_embeddings")

    def attention_rows(self, queries: Queries) -> Tensor:
        """(heads, Q, N) float32: softmax rows of the layer before, visual columns only.

        The softmax runs over all keys, so rows do not sum to 1. `after_visual`: every row after
        the last visual token; `last`: the last row of the prompt.
        """
        return self._value("attention_rows", queries=queries)

    def attention_rows_ahead(self, queries: Queries) -> Tensor:
        """(heads, Q, N) float32: as `attention_rows`, of the layer acted at, before it runs.

        The projections and the norm of that layer are applied to what comes in, once more than the
        model itself does.
        """
        return self._value("attention_rows_ahead", queries=queries)

    def keys(self) -> Tensor:
        """(kv_heads, N, head_dim): keys of the layer before, after RoPE."""
        return self._value("keys")

    def values(self) -> Tensor:
        """(kv_heads, N, head_dim): values of the layer before."""
        return self._value("values")

    def attention_output(self) -> Tensor:
        """(N, heads x head_dim): joined head outputs of the layer before, before o_proj."""
        return self._value("attention_output")

    def attention_projection(self) -> Tensor:
        """(N, d): attention output of the layer before, after o_proj."""
        return self._value("attention_projection")

    def hidden(self) -> Tensor:
        """(N, d): output of the layer before."""
        return self._value("hidden")

    def window_attention(self, rows: int) -> Tensor:
        """(heads, W, n) float32: softmax rows of the last `rows` prompt tokens, W of them there.

        Rows and entries are those of the layer itself. The query heads are those that read the
        entries; the softmax ran over the whole prompt, so rows of a cut cache do not sum to 1. A
        policy may ask for no more than its `observed_rows`.
        """
        return self._value("window_attention", rows=rows)

    def received_attention(self) -> Tensor:
        """(heads, n) float32: attention each cached entry received from all queries so far.

        The query heads are those that read the entries. While the answer grows only the signal of a
        policy that decides at every step goes on counting.
        """
        return self._value("received_attention")

    def text_keys(self) -> Tensor:
        """(kv_heads, T, head_dim): keys, in the layer before, of the text after the tokens."""
        return self._value("text_keys")

    def normed_hidden(self) -> Tensor:
        """(N, d): `hidden` under the norm that stands at the decoder's end."""
        return self._value("normed_hidden")

    def normed_text(self) -> Tensor:
        """(T, d): the same of the text that follows the visual tokens."""
        return self._value("normed_text")

    def visual_places(self) -> Tensor:
        """(N,) int64: where the visual tokens stand in the sequence that the layer is given."""
        return self._value("visual_places")

    def text_places(self) -> Tensor:
        """(T,) int64: where the text stands that follows the visual tokens."""
        return self._value("text_places")

    if not TYPE_CHECKING:  # a type checker finds such a name by itself

        def __getattr__(self, name: str) -> NoReturn:
            """A name that is no signal.

            Raises:
                StageError: with the nearest name.
            """
            if name.startswith("_"):
                raise AttributeError(name)
            raise StageError(
                f"there is no signal {name!r}",
                allowed=", ".join(SIGNAL_NAMES),
                hint=nearest(name, SIGNAL_NAMES),
            )

    def source_of(self, name: str) -> str:
        """What the signal `name`, asked for before, was made of; empty if there is one way only."""
        return self._sources.get(name, "")

    def _value(self, name: str, **arguments: object) -> Tensor:
        key = (name, *sorted(arguments.items()))
        if key not in self._values:
            for argument, value in arguments.items():
                _check_argument(name, argument, value)
            self._values[key] = self._produce(name, arguments)
        return self._values[key]

    def _produce(self, name: str, arguments: Mapping[str, object]) -> Tensor:
        producer = self._producers.get(name)
        if producer is None:
            raise SignalError(
                f"the signal {name} is not provided at layer {self.layer}",
                allowed=", ".join(self.available()) or "no signals here",
                hint="declare it in the `needs` of the stage, or choose another model",
            )
        self._synchronize()
        start = time.perf_counter()
        produced = producer(**arguments)
        self._synchronize()
        self.cost.ms += (time.perf_counter() - start) * 1000
        self.cost.flops += produced.flops
        self.cost.names.append(name)
        self._sources[name] = produced.source
        return produced.value


def _check_argument(name: str, argument: str, value: object) -> None:
    """See that a signal is asked for as it can be; another value would quietly mean something else.

    Raises:
        StageError: with what is allowed.
    """
    queries = get_args(Queries)
    if argument == "queries" and value not in queries:
        near = nearest(str(value), queries)
        allowed = " or ".join(map(repr, queries))
        raise StageError(f"{name}(queries={value!r})", allowed=allowed, hint=near)
    whole = isinstance(value, int) and not isinstance(value, bool)
    if argument == "layer" and not whole:
        raise StageError(f"{name}(layer={value!r})", allowed="a tower layer, a whole number")
    if argument == "rows" and not (whole and value >= 1):  # type: ignore[operator]
        raise StageError(f"{name}(rows={value!r})", allowed="a whole number of rows, from 1 on")
