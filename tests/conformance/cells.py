"""Every recipe on every family: what runs, what is refused and why, and how far off it is.

The oracle is the untouched library model on the tokens that entered the decoder. It cuts nothing:
it hides from each layer what the recipe had dropped there. Recipes that average tokens inside the
decoder have no such twin, and cache policies have oracles of their own; both are said so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.engine.families import family_oracle, family_session
from tests.engine.support import Hidden
from tests.engine.test_oracle import alive_per_layer
from tests.tolerance import allowed
from vtc_cli.core.discover import recipe_files, sources
from vtc_cli.core.errors import BudgetError, RecipeError, SignalError, VtcError
from vtc_cli.core.media import Media
from vtc_cli.core.plan import Plan
from vtc_cli.core.tokens import TokenTable
from vtc_cli.core.trace import Trace
from vtc_cli.engine.encode import encode
from vtc_cli.engine.inputs import shrink
from vtc_cli.engine.sequence import enter
from vtc_cli.engine.step import Scene
from vtc_cli.models.support.base import Adapter
from vtc_cli.models.support.load import family_class
from vtc_cli.models.support.prompt import EncoderOutput, Kind, Prompt
from vtc_cli.recipe.load import load_recipe
from vtc_cli.recipe.resolve import resolve

FORCED = (65, 70, 75)  # answer tokens that every run is fed
QUESTION = "what colour is the shape on the left?"
REFUSALS = (RecipeError, SignalError)
SLOW_SETTINGS = ("float32 eager", "float16 sdpa")  # half floats crawl on a CPU
FEW: tuple[tuple[str, Kind], ...] = (
    ("gemma3", "image"),
    ("llava", "image"),
    ("llava_next", "image"),
    ("llava_next_video", "video"),
    ("qwen3_vl", "video"),
)
OF_EACH_KIND = ("full", "fastv", "metok", "mustdrop", "random", "snapkv", "visionzip")
SHARES = (4, 2)  # of the tokens: budgets that are tried, the smaller one first


@dataclass(frozen=True)
class Settings:
    """How a model runs.

    Attributes:
        dtype: of weights and activations.
        attention: implementation.
    """

    dtype: torch.dtype
    attention: str


SETTINGS = {
    "float32 sdpa": Settings(torch.float32, "sdpa"),
    "float32 eager": Settings(torch.float32, "eager"),
    "bfloat16 sdpa": Settings(torch.bfloat16, "sdpa"),
    "float16 sdpa": Settings(torch.float16, "sdpa"),
}


@dataclass(frozen=True, eq=False)
class Subject:
    """A narrow model with a prompt about one picture or video."""

    adapter: Adapter
    prompt: Prompt

    @cached_property
    def table(self) -> TokenTable:
        """What the tower gives, made once for all recipes that leave it alone."""
        with torch.inference_mode():
            output = self.adapter.encode(self.prompt)
        table = TokenTable.from_layout(output.features, self.prompt.layout)
        return replace(table, added=output.added)

    @cached_property
    def full_logits(self) -> Tensor:
        """(T, V) of the uncompressed model."""
        return masked_logits(self, Plan("full"), None)


@dataclass(frozen=True)
class Outcome:
    """One cell of the matrix.

    Attributes:
        refused: why the recipe does not run here, None if it does.
        original_tokens: visual tokens of the prompt.
        requested: layer average asked for, None if the recipe takes none.
        layer_average: what was reached.
        text_untouched: every layer processed all text tokens.
        hooks_left: hooks that were not there before.
        difference: from the oracle, None where there is none; in half precision, here as in the
            next two, a share of the largest logit.
        allowed: the largest difference that rounding may make.
        effect: how far the oracle is from the full model.
        note: why there is no oracle.
    """

    refused: str | None = None
    original_tokens: int = 0
    requested: float | None = None
    layer_average: float = 0.0
    text_untouched: bool = True
    hooks_left: int = 0
    difference: float | None = None
    allowed: float = 0.0
    effect: float = 0.0
    note: str = ""


def recipe_names(settings: str = "float32 sdpa") -> list[str]:
    """Shipped recipes; of other precisions one of each kind of stage."""
    return sorted(recipe_files()) if settings == "float32 sdpa" else list(OF_EACH_KIND)


def subjects(settings: str = "float32 sdpa") -> Iterator[tuple[str, Kind]]:
    """Every family with every kind of media that it takes; a few under settings that are slow."""
    if settings in SLOW_SETTINGS:
        yield from FEW
        return
    for family in sorted(sources("models")):
        for kind in sorted(family_class(family).takes):
            yield family, kind


@cache
def model_of(family: str, settings: str) -> Adapter:
    """The narrow model of a family."""
    chosen = SETTINGS[settings]
    adapter = family_class(family).narrow(0)
    adapter.model.to(chosen.dtype)
    adapter.model.set_attn_implementation(chosen.attention)
    adapter.model.generation_config.eos_token_id = None
    return adapter


@cache
def subject(family: str, kind: Kind, settings: str = "float32 sdpa") -> Subject:
    """The model with a prompt: noise, 4 frames for a video."""
    adapter = model_of(family, settings)
    return Subject(adapter, adapter.prepare(media_of(kind), QUESTION))


def media_of(kind: Kind) -> Media:
    """Noise of 40 x 60 pixels."""
    frames = 4 if kind == "video" else 1
    pixels = np.random.default_rng(2).integers(0, 256, (frames, 40, 60, 3), dtype=np.uint8)
    times = tuple(float(frame) for frame in range(frames))
    return Media(pixels, times, kind, f"noise.{kind}", "0" * 64)


def plans_for(name: str, chosen: Subject) -> Iterator[Plan]:
    """The recipe at the tried budgets, the smaller first, and without one.

    Raises:
        VtcError: it does not fit the family.
    """
    tokens = chosen.prompt.layout.tokens
    for budget in (*(tokens // share for share in SHARES), None):
        with suppress(BudgetError):
            yield resolve(
                load_recipe(name),
                chosen.adapter.shape,
                family_signals=chosen.adapter.provides,
                original_tokens=tokens,
                budget=budget,
            )


def followed(name: str, chosen: Subject) -> tuple[Subject, Plan, Trace, Tensor]:
    """The recipe at the first budget that it meets: what it saw, plan, trace and (T, V) logits."""
    for plan in plans_for(name, chosen):
        with suppress(BudgetError):
            seen = chosen
            if plan.input or plan.before_pooling:
                media = media_of(chosen.prompt.kinds[0])
                seen = Subject(
                    chosen.adapter, shrink(chosen.adapter, media, chosen.prompt, plan)[0]
                )
            return (seen, plan, *follow(seen, plan))
    raise AssertionError(f"{name} meets no budget and does not run without one")


def follow(chosen: Subject, plan: Plan) -> tuple[Trace, Tensor]:
    """The engine's pass over the prompt and the forced answer."""
    given = None if plan.encoder else chosen.table
    session = family_session(chosen.adapter)
    return session.follow(chosen.prompt, plan, list(FORCED), tokens=given)


@torch.inference_mode()
def checked(name: str, chosen: Subject) -> Outcome:
    """Run one cell."""
    adapter = chosen.adapter
    before = hooks_of(adapter)
    try:
        chosen, plan, trace, logits = followed(name, chosen)
    except REFUSALS as error:
        return Outcome(refused=reason(error))
    layers = adapter.shape.decoder.layers
    text = [a - b for a, b in zip(trace.sequence_tokens, trace.visual_tokens, strict=True)]
    counts_tokens = plan.budget_counts == "visual_tokens"
    outcome = Outcome(
        original_tokens=trace.original_tokens,
        requested=plan.requested if counts_tokens else None,
        layer_average=sum(trace.visual_tokens) / layers,
        text_untouched=text == [trace.text_tokens] * layers,
        hooks_left=len(hooks_of(adapter) - before),
    )
    return with_oracle(outcome, chosen, plan, trace, logits)


def with_oracle(
    outcome: Outcome, chosen: Subject, plan: Plan, trace: Trace, logits: Tensor
) -> Outcome:
    """The outcome with its distance from the masked model, where that is one."""
    if plan.positions == "renumbered":
        return replace(outcome, note="positions are counted anew in every layer")
    prefill = [record for record in trace.records if record.phase == "prefill"]
    if not all(record.decision.is_pruning for record in prefill):
        return replace(outcome, note="tokens are averaged inside the decoder")
    if plan.decode:  # cache policies have oracles of their own
        plan = replace(plan, decode=())
        trace, logits = follow(chosen, plan)
    masked, full = masked_logits(chosen, plan, trace), chosen.full_logits
    dtype = chosen.adapter.model.dtype
    scale = 1.0 if dtype == torch.float32 else float(full.abs().max())
    return replace(
        outcome,
        difference=float((logits - masked).abs().max()) / scale,
        allowed=allowed(masked, dtype, model=chosen.adapter) / scale,
        effect=float((masked - full).abs().max()) / scale,
    )


@torch.inference_mode()
def masked_logits(chosen: Subject, plan: Plan, trace: Trace | None) -> Tensor:
    """(T, V) float32 logits of the library's decoder on what entered it under `plan`."""
    from transformers import DynamicCache

    adapter, prompt = chosen.adapter, chosen.prompt
    table, output = entering(chosen, plan)
    plain = prompt.position_ids.ndim == 2
    entry = enter(prompt, table, renumbered=plan.positions == "entered" and plain)
    depth = adapter.shape.decoder.layers
    hidden = Hidden() if trace is None else Hidden(prefill=entered_columns(entry, trace, depth))
    given: dict[str, Any] = {
        "past_key_values": DynamicCache(config=adapter.decoder.config),
        "use_cache": True,
        "logits_to_keep": 1,
    }
    arguments = adapter.prefill_arguments(output, table.features, table.span)
    for carrier in output.carriers.values():
        if table.added:  # the library adds the rows itself, at every token that entered
            carrier.deepstack_features = [[rows] for rows in table.added]
    arguments |= adapter.sequence_arguments(entry.input_ids)
    with family_oracle(adapter, hidden, len(entry.sequence)):
        ids, positions = entry.input_ids, entry.position_ids
        done = adapter.model(input_ids=ids, position_ids=positions, **arguments, **given)
        logits = [done.logits[0, -1]]
        for step, token in enumerate(FORCED[:-1]):
            position = entry.next_position + step
            done = adapter.model(input_ids=torch.tensor([[token]]), position_ids=position, **given)
            logits.append(done.logits[0, -1])
    return torch.stack(logits).float()


def entering(chosen: Subject, plan: Plan) -> tuple[TokenTable, EncoderOutput]:
    """Tokens at the decoder's door under the encoder stages of `plan`."""
    adapter, prompt = chosen.adapter, chosen.prompt
    if not plan.encoder:
        table = chosen.table
        return table, adapter.carry(table.features, prompt.kinds)
    blank = family_session(adapter)._empty_trace(prompt, plan)
    depth, device = adapter.shape.decoder.layers, torch.device("cpu")
    scene = Scene(blank, prompt.layout, depth, plan.budget, 0, device)
    encoded = encode(adapter, prompt, plan, scene)
    return encoded.table, encoded.output


def entered_columns(entry: Any, trace: Trace, layers: int) -> dict[int, Tensor]:
    """For each layer the places of the entered sequence that the recipe had dropped there."""
    table, places = entry.sequence.table, entry.sequence.visual
    hidden = {}
    for layer, anchors in alive_per_layer(trace, layers).items():
        gone = ~torch.isin(table.anchor, anchors)
        flags = torch.zeros(len(entry.sequence), dtype=torch.bool)
        flags[places[gone]] = True
        hidden[layer] = flags
    return hidden


def hooks_of(adapter: Adapter) -> set[tuple[int, int]]:
    """Our hooks on all modules of a model; the library leaves recorders of its own."""
    return {
        (id(module), number)
        for module in adapter.model.modules()
        for hooks in (module._forward_pre_hooks, module._forward_hooks)
        for number, hook in hooks.items()
        if hook.__module__.startswith("vtc_cli")
    }


def reason(error: VtcError) -> str:
    """Why a recipe is refused, in one line."""
    faults = getattr(error, "faults", None)
    if faults:
        return "; ".join(dict.fromkeys(reason(fault) for fault in faults))
    allowed = "" if isinstance(error, SignalError) else f" ({error.allowed})"
    return f"{error.found}{allowed}"
