"""Decode: one token after the other from a cache whose layers have lengths of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vtc_cli.core.errors import ModelError
from vtc_cli.engine.cache import LogicalLayer
from vtc_cli.engine.clock import Stopwatch
from vtc_cli.engine.evict import Evictor
from vtc_cli.engine.hooks import HookSet
from vtc_cli.engine.tap import AttentionTap
from vtc_cli.models.support.base import Adapter


@dataclass(frozen=True)
class Generation:
    """How an answer is made.

    Attributes:
        max_new_tokens: upper bound on the answer.
        temperature: 0 is greedy; above, sampling.
        top_p: nucleus of sampling, in (0, 1].
        seed: of sampling and of random stages.
        forced: token ids to be fed instead of the model's own choice (teacher forcing).
    """

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    forced: tuple[int, ...] | None = None

    @property
    def tokens(self) -> int:
        """Tokens to make at most."""
        return self.max_new_tokens if self.forced is None else len(self.forced)


@dataclass
class Decoded:
    """What decoding gave.

    Attributes:
        ids: the answer's token ids.
        logits: for each of them the (V,) float32 logits it was chosen from.
        step_ms: time of each forward after the first token.
        policies_ms: what each of these spent on cache policies, empty if none follows decoding.
        entries: for each forward the mean entries a head that each layer read.
    """

    ids: list[int] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    step_ms: list[float] = field(default_factory=list)
    policies_ms: list[float] = field(default_factory=list)
    entries: list[list[float]] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Decoder:
    """Generates from a filled cache, turn after turn.

    Attributes:
        adapter: the model.
        cache: a logical cache.
        evictor: cache policies.
        generation: how to choose tokens and when to stop.
        renumbered: each layer places the query at its own number of cached entries.
        on_token: called with all ids of an answer so far after each token.
    """

    adapter: Adapter
    cache: Any
    evictor: Evictor
    generation: Generation
    renumbered: bool
    on_token: Callable[[list[int]], None] | None = None

    def answer(self, first_logits: Tensor, next_position: Tensor) -> Decoded:
        """Generate until the model stops or the bound is met.

        Args:
            first_logits: (V,) logits of the first answer token.
            next_position: (..., 1, 1) position id of that token.
        """
        adapter, generation = self.adapter, self.generation
        decoded = Decoded()
        choose = chooser(generation)
        stops = frozenset[int]() if generation.forced is not None else adapter.stop_ids()
        logits = first_logits
        with self._hooks(next_position) as tap:
            for step in range(generation.tokens):
                token = choose(logits, step)
                decoded.ids.append(token)
                decoded.logits.append(logits.float())
                if self.on_token is not None:
                    self.on_token(decoded.ids)
                if token in stops or step + 1 == generation.tokens:
                    break
                logits = self._step(decoded, token, next_position + step, tap)
        if generation.forced is not None:
            _check_finite([each.isfinite().all() for each in decoded.logits])
        return decoded

    def _step(self, decoded: Decoded, token: int, position: Tensor, tap: AttentionTap) -> Tensor:
        """One more token through the model and the policies; its (V,) logits."""
        watch = Stopwatch(self.adapter.device)
        decoded.entries.append([stored.entries for stored in self.cache.layers])
        ids = torch.tensor([[token]], device=self.adapter.device)
        logits = self._forward(ids, position)
        if self.evictor.follows:
            watch.lap_ms()
            self.evictor.after_token(tap)
            decoded.policies_ms.append(watch.lap_ms())
        decoded.step_ms.append(watch.total_ms())
        return logits

    def read(self, input_ids: Tensor, next_position: Tensor) -> tuple[Tensor, Tensor]:
        """Read the tokens of a further turn (1, T) behind what the cache holds.

        Returns:
            (V,) logits of the first token of the answer, and the (..., 1, 1) position id of that.
        """
        count = torch.arange(input_ids.shape[1], device=input_ids.device)
        with self._hooks(next_position) as tap:
            logits = self._forward(input_ids, next_position + count)
            self.evictor.after_token(tap)
        return logits, next_position + input_ids.shape[1]

    @contextmanager
    def _hooks(self, next_position: Tensor) -> Iterator[AttentionTap]:
        """Masks and positions of each layer's own cache; what policies read of its attention."""
        adapter = self.adapter
        rows = next_position.shape[:-1] if self.renumbered else None
        read = [(adapter.decoder_attention(layer), layer) for layer in self.evictor.reading]
        attention = adapter.decoder.config._attn_implementation
        with HookSet() as hooks, AttentionTap(read, attention) as tap:
            for layer, block in enumerate(adapter.decoder_layers):
                hooks.before(block, _step_hook(adapter, layer, self.cache.layers[layer], rows))
            yield tap

    def _forward(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        """(V,) logits behind the last of `input_ids` (1, T)."""
        output = self.adapter.model(
            input_ids=input_ids,
            position_ids=position_ids,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = output.logits[0, -1]
        return logits


def _step_hook(
    adapter: Adapter, layer: int, stored: LogicalLayer, rows: Sequence[int] | None
) -> Any:
    """Give a layer the mask of its own cache and, when renumbered, its own positions.

    `rows` are the leading dimensions of renumbered position ids.
    """
    config = adapter.decoder.config
    groups = config.num_attention_heads // config.num_key_value_heads
    window = adapter.attention_window(layer)

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        hidden = args[0]
        fitted = dict(kwargs)
        mask = stored.mask(int(hidden.shape[1]), groups, window)
        if mask is not None and config._attn_implementation == "eager":
            lowest = torch.finfo(hidden.dtype).min
            mask = torch.zeros_like(mask, dtype=hidden.dtype).masked_fill(~mask, lowest)
        fitted["attention_mask"] = mask
        if rows is not None:
            start = stored.stored
            counted = torch.arange(start, start + hidden.shape[1], device=hidden.device)
            places = counted.expand(*rows, -1)
            fitted["position_ids"] = adapter.layer_position_ids(places)
            fitted["position_embeddings"] = adapter.rotary(hidden, places, layer)
        return args, fitted

    return hook


def chooser(
    generation: Generation, generator: torch.Generator | None = None
) -> Callable[[Tensor, int], int]:
    """The rule that picks a token from (V,) logits at a step.

    Args:
        generation: how the answer is made.
        generator: of sampling, None for the one of the device.
    """
    forced = generation.forced
    if forced is not None:
        return lambda logits, step: forced[step]
    if generation.temperature == 0:
        return lambda logits, step: _taken(logits.argmax(), logits)
    return _sampler(generation, generator)


def _sampler(
    generation: Generation, generator: torch.Generator | None
) -> Callable[[Tensor, int], int]:
    """Temperature and nucleus sampling with the library's own warpers."""
    from transformers import TemperatureLogitsWarper, TopPLogitsWarper

    warpers: list[Any] = [TemperatureLogitsWarper(generation.temperature)]
    if generation.top_p < 1.0:
        warpers.append(TopPLogitsWarper(generation.top_p))

    def choose(logits: Tensor, step: int) -> int:
        scores = logits.float()[None]
        for warper in warpers:
            scores = warper(None, scores)
        # Chances that are NaN end a GPU's process; the choice is refused anyway.
        shares = scores.softmax(dim=-1).nan_to_num(1.0)
        chosen = torch.multinomial(shares, num_samples=1, generator=generator)
        return _taken(chosen[0, 0], logits)

    return choose


def _taken(choice: Tensor, logits: Tensor) -> int:
    """The chosen token id, in one transfer with whether its (V,) logits are finite."""
    token, sound = torch.stack([choice, logits.isfinite().all().to(choice.dtype)]).tolist()
    if not sound:
        raise _not_finite()
    return int(token)


def _check_finite(sound: list[Tensor]) -> None:
    """See that logits were finite, in one transfer for all tokens."""
    if sound and not bool(torch.stack(sound).all()):
        raise _not_finite()


def _not_finite() -> ModelError:
    return ModelError(
        "logits that are NaN or infinite",
        allowed="finite logits",
        hint="--dtype float32 or bfloat16, for float16 is too narrow for many models; where the "
        "recipe `full` answers, a stage of this recipe made them",
    )
