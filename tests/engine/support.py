"""A small random LLaVA, toy stages for each phase, and the mask oracle.

The oracle is the untouched model: it slices nothing and shares no code with the engine. It only
hides columns from the attention of chosen layers with 4-D masks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from vtc_cli.core.decision import Decision
from vtc_cli.core.media import Media
from vtc_cli.core.plan import Plan, Planned
from vtc_cli.core.signals import Signals
from vtc_cli.core.stage import CacheEntries, DecodeStage, EncoderStage, PrefillStage, parameter
from vtc_cli.core.tokens import TokenTable
from vtc_cli.core.trace import ModelFacts
from vtc_cli.engine.encode import Encoded, encode
from vtc_cli.engine.sequence import Entry, enter
from vtc_cli.engine.session import Session
from vtc_cli.engine.step import Scene
from vtc_cli.models.llava import LlavaAdapter
from vtc_cli.models.support.offline import byte_processor, random_llava
from vtc_cli.models.support.prompt import Prompt

STEPS = 10
QUESTION = "what is on the left?"


def small_adapter(attention: str = "sdpa") -> LlavaAdapter:
    """36 visual tokens, 4 tower layers, 6 decoder layers with grouped queries."""
    model = random_llava(
        3, width=64, vision_layers=4, decoder_layers=6, image_size=84, patch_size=14
    )
    model.set_attn_implementation(attention)
    model.generation_config.eos_token_id = None
    return LlavaAdapter(model, byte_processor(model))


def session_of(adapter: LlavaAdapter) -> Session:
    facts = ModelFacts("small", "llava", "random", "float32", "cpu", "sdpa", adapter.shape)
    return Session(adapter, facts)


def noise_media(seed: int = 0, height: int = 70, width: int = 90) -> Media:
    pixels = np.random.default_rng(seed).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    return Media(pixels, (0.0,), "image", "noise.png", "0" * 64)


def planned(stage: Any, name: str = "toy") -> Planned[Any]:
    return Planned(name, stage, {}, {})


def plan_of(*stages: Any, **options: Any) -> Plan:
    by_phase: dict[str, tuple[Planned[Any], ...]] = {"encoder": (), "prefill": (), "decode": ()}
    for stage in stages:
        by_phase[stage.phase] += (planned(stage, type(stage).short_name()),)
    return Plan("toy", **by_phase, **options)


@dataclass(frozen=True, kw_only=True)
class TowerPrune(EncoderStage):
    """Drops every fourth patch inside the tower."""

    vision_layer: int = parameter(2, "", layer_of="vision")

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        index = torch.arange(len(tokens))
        return Decision.prune(index[index % 4 != 1], len(tokens))


@dataclass(frozen=True, kw_only=True)
class ProjectedPrune(EncoderStage):
    """Drops every third token behind the projector."""

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        index = torch.arange(len(tokens))
        return Decision.prune(index[(index % 3 != 0) | tokens.protected], len(tokens))


@dataclass(frozen=True, kw_only=True)
class ShrinkingPrune(PrefillStage):
    """Keeps a third of the tokens at each of its layers, chosen by place."""

    layers: tuple[int, ...] = (2, 4)

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        index = torch.arange(len(tokens))
        stays = (index % 3 == signals.layer % 3) | tokens.protected
        return Decision.prune(index[stays], len(tokens))


@dataclass(frozen=True, kw_only=True)
class AttentionPrune(PrefillStage):
    """Keeps the half that the text attends to most."""

    needs: ClassVar[frozenset[str]] = frozenset({"attention_rows"})
    layers: tuple[int, ...] = (2,)

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        score = signals.attention_rows("after_visual").mean(0).sum(0)
        first = score + tokens.protected * (score.max() + 1)
        count = max(len(tokens) // 2, int(tokens.protected.sum()))
        keep = first.argsort(descending=True, stable=True)[:count].sort().values
        return Decision.prune(keep, len(tokens), scores=score)


@dataclass(frozen=True, kw_only=True)
class KeepAll(PrefillStage):
    """Decides at every layer and changes nothing."""

    layers: tuple[int, ...] = (0, 1, 2, 3, 4, 5)

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        return Decision.identity(len(tokens), tokens.features.device)


@dataclass(frozen=True, kw_only=True)
class RaggedCache(DecodeStage):
    """Head h drops every (3 + h)th visual entry: heads end with different lengths."""

    def decide(self, entries: CacheEntries, signals: Signals) -> tuple[Decision, ...]:
        index = torch.arange(len(entries))
        return tuple(
            Decision.prune(
                index[~(entries.visual & (entries.anchor % (3 + head) == 0))], len(entries)
            )
            for head in entries.heads
        )


@dataclass(frozen=True, kw_only=True)
class EveryStepCache(DecodeStage):
    """Layers from 2 on lose one more visual entry after each token, the oldest first."""

    every_step: ClassVar[bool] = True
    first_layer: int = 2

    def decide(self, entries: CacheEntries, signals: Signals) -> Decision:
        index = torch.arange(len(entries))
        visual = index[entries.visual]
        return Decision.prune(index[index != visual[0]], len(entries))


@dataclass
class Hidden:
    """Columns (logical indices of the uncompressed prompt) that a layer may not see.

    `prefill[layer]` is (N,) bool; `decode[layer]` is (steps, kv_heads, N) bool, by decode step.
    Where positions are renumbered, `prompt_positions[layer]` (N,) holds the rotary position of each
    prompt column and `first_query[layer]` that of the first generated token.
    """

    prefill: dict[int, Tensor] = field(default_factory=dict)
    decode: dict[int, Tensor] = field(default_factory=dict)
    prompt_positions: dict[int, Tensor] = field(default_factory=dict)
    first_query: dict[int, int] = field(default_factory=dict)


def additive_mask(blocked: Tensor, own: Tensor | None, rows: int, dtype: torch.dtype) -> Tensor:
    """(1, heads, rows, columns): 0 where a row sees a column, the lowest number elsewhere.

    Args:
        blocked: (heads, columns) or (1, columns) bool, hidden from every row but the column's own.
        own: the library's mask of the layer, None for the causal one.
        rows: the last ones of the sequence.
        dtype: of the mask.
    """
    columns = blocked.shape[1]
    column, row = torch.arange(columns), torch.arange(columns - rows, columns)[:, None]
    seen = (column <= row)[None, None] if own is None else own
    seen = seen if seen.dtype == torch.bool else seen > -1
    seen = seen & ~blocked[None, :, None] | (column == row)
    return torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)


@contextmanager
def oracle(adapter: LlavaAdapter, hidden: Hidden, prompt_tokens: int) -> Iterator[None]:
    """The untouched model under masks."""
    handles = []
    groups = adapter.shape.decoder.heads // adapter.shape.decoder.kv_heads
    made: dict[Any, Tensor] = {}  # masks of one forward: most layers hide what the one before does

    def hook(module: Any, args: Any, kwargs: Any) -> Any:
        layer, rows = module.self_attn.layer_idx, args[0].shape[1]
        past = kwargs["past_key_values"].layers[layer].get_seq_length()
        blocked = torch.zeros(1, past + rows, dtype=torch.bool)
        if layer in hidden.prefill:
            blocked[:, :prompt_tokens] |= hidden.prefill[layer]
        if past and layer in hidden.decode:
            columns = hidden.decode[layer][past - prompt_tokens].repeat_interleave(groups, 0)
            blocked = blocked.repeat(len(columns), 1)
            blocked[:, :prompt_tokens] |= columns
        if layer == 0:
            made.clear()
        key = (blocked.shape, blocked.numpy().tobytes())
        if key not in made:
            made[key] = additive_mask(blocked, None, rows, torch.float32)
        kwargs["attention_mask"] = made[key]
        if layer in hidden.prompt_positions:
            ids = hidden.prompt_positions[layer]
            if past:
                ids = torch.tensor([hidden.first_query[layer] + past - prompt_tokens])
            rows = (
                (3, 1, -1) if "mrope_section" in adapter.decoder.config.rope_parameters else (1, -1)
            )
            rotary = adapter.decoder.rotary_emb(args[0], position_ids=ids.expand(rows))
            kwargs["position_embeddings"] = rotary
        return args, kwargs

    for block in adapter.decoder_layers:
        handles.append(block.register_forward_pre_hook(hook, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.inference_mode()
def plain_logits(adapter: LlavaAdapter, prompt: Prompt, forced: list[int]) -> Tensor:
    """(steps + 1, V) logits of the library's own forward with its own cache, `forced` fed in."""
    from transformers import DynamicCache

    cache = DynamicCache(config=adapter.decoder.config)
    output = adapter.model(
        input_ids=prompt.input_ids,
        pixel_values=prompt.encoder_inputs["pixel_values"],
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,  # as `generate` does: one row through the head rounds differently from N
    )
    logits = [output.logits[0, -1]]
    for step, token in enumerate(forced[:-1]):
        output = adapter.model(
            input_ids=torch.tensor([[token]]),
            position_ids=prompt.position_ids[..., -1:] + 1 + step,
            past_key_values=cache,
            use_cache=True,
        )
        logits.append(output.logits[0, -1])
    return torch.stack(logits)


def encoded_by(adapter: LlavaAdapter, prompt: Prompt, plan: Plan) -> tuple[Encoded, Entry]:
    """What the engine lets enter the decoder under the encoder stages of `plan`."""
    trace = Session(adapter, session_of(adapter).facts)._empty_trace(prompt, plan)
    depth = adapter.shape.decoder.layers
    scene = Scene(trace, prompt.layout, depth, plan.budget, 0, torch.device("cpu"))
    with torch.inference_mode():
        encoded = encode(adapter, prompt, plan, scene)
        return encoded, enter(prompt, encoded.table, renumbered=plan.positions != "original")


@torch.inference_mode()
def masked_logits(
    adapter: LlavaAdapter, encoded: Encoded, entry: Entry, hidden: Hidden, forced: list[int]
) -> Tensor:
    """(steps, V) logits of the untouched decoder behind the encoder; it hides, it cuts nothing."""
    from transformers import DynamicCache

    cache = DynamicCache(config=adapter.decoder.config)
    arguments = adapter.prefill_arguments(
        encoded.output, encoded.table.features, encoded.table.span
    )
    with oracle(adapter, hidden, int(entry.input_ids.shape[1])):
        output = adapter.model(
            input_ids=entry.input_ids,
            position_ids=entry.position_ids,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
            **arguments,
        )
        logits = [output.logits[0, -1]]
        for step, token in enumerate(forced[:-1]):
            output = adapter.model(
                input_ids=torch.tensor([[token]]),
                position_ids=entry.next_position + step,
                past_key_values=cache,
                use_cache=True,
            )
            logits.append(output.logits[0, -1])
    return torch.stack(logits)
