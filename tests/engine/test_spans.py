"""Several pictures and videos in a prompt, each decided over alone, and further turns on the cache.

Compared with the untouched library model, which reads the same prompt and, for the pruned runs, is
only hidden columns from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.engine.families import family_oracle, family_session, own_arguments, small_family
from tests.engine.qwen_support import library_inputs, noise_video, small_qwen
from tests.engine.support import (
    AttentionPrune,
    Hidden,
    KeepAll,
    ProjectedPrune,
    RaggedCache,
    ShrinkingPrune,
    noise_media,
    plan_of,
    small_adapter,
)
from tests.engine.test_oracle import alive_per_layer, alive_to_hidden
from tests.tolerance import close
from vtc_cli.core.errors import MediaError, UsageError
from vtc_cli.core.media import Media
from vtc_cli.core.trace import Trace
from vtc_cli.engine.decode import Generation
from vtc_cli.engine.session import Session
from vtc_cli.models.support.base import Adapter
from vtc_cli.models.support.prompt import Prompt
from vtc_cli.recipe.load import load_recipe
from vtc_cli.recipe.resolve import resolve

STEPS, LAYERS, EFFECT = 4, 6, 1e-2
QUESTION, NEXT = "what is the same?", "and what is not?"
FIRST, SECOND, VIDEO = noise_media(1), noise_media(2, 110, 60), noise_video(3)

CASES: dict[str, tuple[Callable[[], Adapter], tuple[Media, ...]]] = {
    "llava": (small_adapter, (FIRST, SECOND)),
    "gemma3": (lambda: small_family("gemma3"), (FIRST, SECOND)),
    "internvl": (lambda: small_family("internvl"), (FIRST, SECOND)),
    "qwen2_vl": (lambda: small_qwen("qwen2_vl"), (FIRST, SECOND)),
    "qwen2_5_vl": (lambda: small_qwen("qwen2_5_vl"), (FIRST, VIDEO)),
    "qwen3_vl": (lambda: small_qwen("qwen3_vl"), (VIDEO, FIRST)),
    "two videos": (lambda: small_qwen("qwen3_vl"), (VIDEO, noise_video(2, 40, 50))),
}


@dataclass(frozen=True, eq=False)
class Case:
    adapter: Adapter
    session: Session
    prompt: Prompt

    def run(self, *stages: Any, forced: Sequence[int] | None = None, **options: Any) -> Trace:
        turns = options.pop("turns", ())
        answer = None if forced is None else tuple(forced)
        generation = Generation(max_new_tokens=STEPS, forced=answer)
        plan = options.pop("plan", None) or plan_of(*stages, **options)
        return self.session.run(self.prompt, plan, generation, turns=turns)


@cache
def made(name: str) -> Case:
    build, media = CASES[name]
    adapter = build()
    return Case(adapter, family_session(adapter), adapter.prepare(media, QUESTION))


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return made(request.param)


@torch.inference_mode()
def library_logits(case: Case, chunks: Sequence[Sequence[int]]) -> Tensor:
    """(1 + chunks, V) logits of the library's own model behind the prompt and behind each chunk."""
    from transformers import DynamicCache

    adapter, prompt = case.adapter, case.prompt
    if adapter.family.startswith("qwen"):
        inputs: dict[str, Any] = library_inputs(adapter, prompt)  # type: ignore[arg-type]
    else:
        inputs = {"input_ids": prompt.input_ids, **own_arguments(adapter, prompt)}
    positions = adapter.model._prepare_position_ids_for_generation(
        inputs["input_ids"], dict(inputs)
    )
    given = {
        "past_key_values": DynamicCache(config=adapter.decoder.config),
        "use_cache": True,
        "logits_to_keep": 1,
    }
    logits = [adapter.model(**inputs, position_ids=positions, **given).logits[0, -1]]
    following = positions[..., -1:] + 1
    for chunk in chunks:
        ids, count = torch.tensor([list(chunk)]), torch.arange(len(chunk))
        output = adapter.model(input_ids=ids, position_ids=following + count, **given)
        following = following + len(chunk)
        logits.append(output.logits[0, -1])
    return torch.stack(logits)


def hidden_of(case: Case, trace: Trace) -> Hidden:
    return Hidden(prefill=alive_to_hidden(alive_per_layer(trace, LAYERS), case.prompt))


def test_the_prompt_holds_every_span_in_its_order(case: Case) -> None:
    layout = case.prompt.layout
    assert layout.spans == 2 and len(case.prompt.patch_boxes) == layout.tokens
    columns = layout.columns(torch.device("cpu"))
    assert bool((columns.span.diff() >= 0).all())
    between = int(case.prompt.visual_index[layout.tokens_of(0)])
    before = int(case.prompt.visual_index[layout.tokens_of(0) - 1])
    assert between > before  # the places of the second span lie behind those of the first


@pytest.mark.parametrize("stages", [(), (KeepAll(),)], ids=["no stages", "keep all"])
def test_keeping_everything_is_the_library_bit_for_bit(case: Case, stages: tuple[Any, ...]) -> None:
    trace = case.run(*stages)
    logits = library_logits(case, [[token] for token in trace.answer_ids[:-1]])
    assert trace.answer_ids == logits.argmax(dim=-1).tolist()
    assert torch.equal(trace.first_logits, logits[0].float())  # type: ignore[arg-type]


PRUNES = {
    "behind the projector": (ProjectedPrune(),),
    "in the decoder": (ShrinkingPrune(),),
    "by attention": (ProjectedPrune(), AttentionPrune(layers=(2, 4))),
}


@pytest.mark.parametrize("name", PRUNES)
def test_pruning_each_span_equals_the_masked_model(case: Case, name: str) -> None:
    trace = case.run(*PRUNES[name])
    chunks = [[token] for token in trace.answer_ids[:-1]]
    with family_oracle(case.adapter, hidden_of(case, trace), case.prompt.prompt_tokens):
        masked = library_logits(case, chunks)
    full = library_logits(case, chunks)
    _, ours = case.session.follow(case.prompt, trace.plan, trace.answer_ids)
    close(ours, masked, model=case.adapter)
    assert float((ours - full).abs().max()) > EFFECT
    assert all(counts[-1] > 0 for counts in trace.visual_by_span)
    assert [sum(c) for c in zip(*trace.visual_by_span, strict=True)] == trace.visual_tokens


def test_a_stage_decides_over_each_span_as_if_it_were_alone(case: Case) -> None:
    """Every third token of each span leaves, counted within the span."""
    record = case.run(ProjectedPrune()).records[0]
    layout, start, expected = case.prompt.layout, 0, []
    for span in range(2):
        count = layout.tokens_of(span)
        expected += [start + index for index in range(count) if index % 3 != 0]
        start += count
    assert record.anchor.tolist() == expected


@pytest.mark.parametrize("name", ["random", "uniform", "fastv", "tokencarve"])
@pytest.mark.parametrize("shares", [(0.4, 0.4), (0.5, 0.3)], ids=["shared", "one each"])
def test_every_span_meets_its_budget(case: Case, name: str, shares: tuple[float, float]) -> None:
    adapter, layout = case.adapter, case.prompt.layout
    wanted = tuple(share * layout.tokens_of(span) for span, share in enumerate(shares))
    plan = resolve(
        load_recipe(name),
        adapter.shape,
        family_signals=adapter.provides,
        original_tokens=layout.tokens,
        budget=sum(wanted),
    )
    trace = case.run(plan=replace(plan, span_budgets=wanted if shares[0] != shares[1] else ()))
    found = [sum(counts) / LAYERS for counts in trace.visual_by_span]
    assert found == pytest.approx(wanted, abs=0.5)


def test_stages_inside_the_tower_take_pictures_one_by_one() -> None:
    """What each picture sends to the decoder is what it sends when it is asked about alone."""
    case = made("llava")
    plan = resolve(
        load_recipe("mustdrop"),
        case.adapter.shape,
        family_signals=case.adapter.provides,
        original_tokens=72,
        budget=None,
    )
    together = case.session.compress(case.prompt, replace(plan, prefill=(), decode=()))
    first = 0
    for span, media in enumerate((FIRST, SECOND)):
        alone = case.session.compress(
            case.adapter.prepare(media, QUESTION), replace(plan, prefill=(), decode=())
        )
        part = together.entering.part(span)
        assert torch.equal(part.features, alone.entering.features)
        assert part.anchor.tolist() == alone.entering.anchor.tolist()
        assert part.protected.tolist() == alone.entering.protected.tolist()
        first += len(part)
    records = together.trace.records
    assert [r.stage for r in records] == ["mustdrop.spatial_merge", "mustdrop.key_tokens"]
    assert records[-1].after == first == len(together.entering)
    assert records[0].before == 72 and len(together.trace.tower) == 2


def test_mustdrop_meets_its_budget_over_each_of_two_pictures() -> None:
    case = made("llava")
    plan = resolve(
        load_recipe("mustdrop"),
        case.adapter.shape,
        family_signals=case.adapter.provides,
        original_tokens=72,
        budget=40.0,
    )
    trace = case.run(plan=plan)
    shares = [sum(counts) / LAYERS for counts in trace.visual_by_span]
    assert shares == pytest.approx([20.0, 20.0], abs=0.5)


@pytest.mark.parametrize("stages", [(), (ProjectedPrune(), ShrinkingPrune())], ids=["all", "cut"])
def test_a_further_turn_equals_the_library_on_its_own_cache(
    case: Case, stages: tuple[Any, ...]
) -> None:
    trace = case.run(*stages, turns=(NEXT, "why?"))
    chunks = [[token] for token in trace.answer_ids[:-1]]
    last, asked = trace.answer_ids[-1], [len(chunks)]
    for turn in trace.turns:
        chunks.append(case.adapter.turn_ids(turn.question, last)[0].tolist())
        asked.append(len(chunks))
        chunks += [[token] for token in turn.answer_ids[:-1]]
        last = turn.answer_ids[-1]
    with family_oracle(case.adapter, hidden_of(case, trace), case.prompt.prompt_tokens):
        masked = library_logits(case, chunks)
    for turn, at in zip(trace.turns, asked[1:], strict=True):
        theirs = masked[at : at + len(turn.answer_ids)]
        close(turn.logits, theirs, model=case.adapter)
    alone = case.run(*stages, turns=("why?",))
    assert float((alone.turns[0].logits[0] - trace.turns[1].logits[0]).abs().max()) > EFFECT


def test_a_further_turn_behind_a_cache_policy_sees_what_each_head_holds() -> None:
    case = made("llava")
    trace = case.run(ShrinkingPrune(), RaggedCache(), turns=(NEXT,))
    chunks = [[token] for token in trace.answer_ids[:-1]]
    turn = case.adapter.turn_ids(NEXT, trace.answer_ids[-1])[0].tolist()
    hidden = hidden_of(case, trace)
    steps = STEPS + len(turn)
    index = case.prompt.visual_index
    for layer, columns in hidden.prefill.items():
        flags = columns.expand(steps, 2, -1).clone()
        for head in (0, 1):
            gone = torch.arange(72) % (3 + head) == 0
            flags[:, head, index[gone]] = True
        hidden.decode[layer] = flags
    with family_oracle(case.adapter, hidden, case.prompt.prompt_tokens):
        masked = library_logits(case, [*chunks, turn])
    close(trace.turns[0].logits[0], masked[-1], model=case.adapter)


def test_a_turn_begins_behind_the_token_that_closed_the_answer() -> None:
    adapter = made("qwen2_vl").adapter
    tokenizer = adapter.parts.tokenizer
    closing = tokenizer.convert_tokens_to_ids("<|im_end|>")
    ended = adapter.turn_ids(NEXT, closing)[0].tolist()
    broken = adapter.turn_ids(NEXT, 65)[0].tolist()
    assert broken == [65, *ended] and ended.count(closing) == 2  # its own and the next turn's
    text = tokenizer.decode(ended)
    assert text.endswith("assistant\n") and NEXT in text


def test_a_family_of_one_kind_refuses_the_other() -> None:
    with pytest.raises(MediaError, match="3 frames"):
        made("llava").adapter.prepare((FIRST, VIDEO), QUESTION)
    with pytest.raises(UsageError, match="more than 2 times"):
        made("llava").adapter.prepare((FIRST, SECOND), "<image>?")
