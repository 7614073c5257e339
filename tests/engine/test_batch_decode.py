"""Answers made together against the same answers made alone, token for token, logit for logit.

A product of several rows at once rounds differently from one of a row.
Every case has caches of different lengths, or it would prove nothing about padding.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.engine.families import family_prompt, family_session, small_family
from tests.engine.qwen_support import SMALL as FAMILIES
from tests.engine.qwen_support import noise_video, session_for, small_qwen
from tests.engine.support import (
    STEPS,
    EveryStepCache,
    ProjectedPrune,
    RaggedCache,
    ShrinkingPrune,
    noise_media,
    plan_of,
    session_of,
    small_adapter,
)
from tests.tolerance import apart, close
from vtc_cli.commands.loading import load_session
from vtc_cli.commands.output import Output
from vtc_cli.core.plan import Fidelity, Plan
from vtc_cli.core.trace import Trace
from vtc_cli.engine.batch_decode import alone_because, decode_together
from vtc_cli.engine.decode import Decoded, Generation
from vtc_cli.engine.reading import Request
from vtc_cli.engine.session import Session
from vtc_cli.media.image import read_image
from vtc_cli.models.support.prompt import Prompt
from vtc_cli.recipe.load import load_recipe
from vtc_cli.recipe.resolve import Budget, resolve

ROOT = Path(__file__).parents[2]
RECIPES = [
    name
    for name in sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))
    if not any(getattr(use.cls, "every_step", False) for use in load_recipe(name).stages)
]  # the others decide after every token and go one by one
ASKED = (
    ("plain", "what color is the circle?"),
    ("gradient", "describe the picture."),
    ("stripes", "how many shapes are there in the whole picture?"),
)


@pytest.fixture(scope="module")
def tiny() -> Session:
    return load_session(Output(quiet=True), "tiny", "cpu", "float32")


@pytest.fixture(scope="module")
def prompts(tiny: Session) -> list[Prompt]:
    return [
        tiny.adapter.prepare(read_image(str(ROOT / "samples" / f"{name}.png")), question)
        for name, question in ASKED
    ]


def plan_for(
    session: Session, prompt: Prompt, name: str, budget: Budget, fidelity: Fidelity | None = None
) -> Plan:
    return resolve(
        load_recipe(name),
        session.adapter.shape,
        family_signals=session.adapter.provides,
        original_tokens=prompt.layout.tokens,
        budget=budget,
        fidelity=fidelity,
    )


def check_together(
    session: Session, requests: list[Request]
) -> tuple[list[Trace], list[Trace], list[Decoded]]:
    """Traces of the answers made alone and together, after the comparison of every logit."""
    alone = [session._pass(request) for request in requests]
    reads = [session.read_prompt(request) for request in requests]
    together = decode_together(session.adapter, reads)
    for request, (_, one), batched in zip(requests, alone, together, strict=True):
        for row in one.logits if request.generation.temperature == 0 else ():
            apart(row, [int(row.argmax())], model=session.adapter)  # or the next tokens may differ
        assert batched.ids == one.ids
        close(torch.stack(batched.logits), torch.stack(one.logits), model=session.adapter)
        assert batched.entries == one.entries
    again = [session.read_prompt(request) for request in requests]
    return [trace for trace, _ in alone], session.answer_together(again), together


@pytest.mark.parametrize("name", RECIPES)
def test_a_batch_under_each_shipped_recipe_is_its_jobs_one_by_one(
    tiny: Session, prompts: list[Prompt], name: str
) -> None:
    generation = Generation(max_new_tokens=14)
    requests = [
        Request(prompt, plan_for(tiny, prompt, name, "default"), generation) for prompt in prompts
    ]
    alone, together, _ = check_together(tiny, requests)
    assert len({len(trace.answer_ids) for trace in alone}) > 1  # rows leave at different steps
    assert len({trace.prompt_tokens for trace in alone}) == 3
    for one, batched in zip(alone, together, strict=True):
        assert batched.answer == one.answer
        assert batched.kv_entries == one.kv_entries
        assert batched.final_kv_entries == one.final_kv_entries
        assert batched.timings[0].total_ms is None and batched.timings[0].decode_ms == []
        assert batched.timings[0].ttft_ms > 0 and batched.peak_bytes is None


def test_recipes_budgets_and_positions_mix_in_one_batch(
    tiny: Session, prompts: list[Prompt]
) -> None:
    wishes: list[tuple[str, Budget, Fidelity | None]] = [
        ("full", None, None),
        ("mustdrop", 64.0, "official"),
        ("fastv", 128.0, None),
        ("tokencarve", 64.0, "official"),
    ]
    plans = [plan_for(tiny, prompts[0], *wish) for wish in wishes]
    assert {plan.positions for plan in plans} >= {"original", "renumbered"}
    prompt_of = [prompts[i % 3] for i in range(len(plans))]
    generation = Generation(max_new_tokens=12)
    requests = [Request(*pair, generation) for pair in zip(prompt_of, plans, strict=True)]
    alone, _, _ = check_together(tiny, requests)
    assert len({tuple(trace.kv_entries) for trace in alone}) == 4


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("positions", ["original", "renumbered"])
def test_heads_of_different_lengths(attention: str, positions: str) -> None:
    adapter = small_adapter(attention)
    session = session_of(adapter)
    plans = [
        plan_of(RaggedCache(), positions=positions),
        plan_of(),
        plan_of(ProjectedPrune(), ShrinkingPrune(), RaggedCache()),
        plan_of(ShrinkingPrune(), positions=positions),
    ]
    questions = ("what?", "what is on the left of it?", "where?", "is it red or is it blue?")
    requests = [
        Request(
            adapter.prepare(noise_media(seed), question), plan, Generation(max_new_tokens=tokens)
        )
        for seed, (question, plan, tokens) in enumerate(
            zip(questions, plans, (STEPS, 3, 7, 1), strict=True)
        )
    ]
    check_together(session, requests)


def test_a_window_counts_from_each_rows_own_end() -> None:
    adapter = small_family("gemma3", sliding_window=24)
    session = family_session(adapter)
    plans = [plan_of(), plan_of(ShrinkingPrune()), plan_of(ProjectedPrune())]
    requests = []
    for seed, plan in enumerate(plans):
        prompt = family_prompt(adapter, seed)
        requests.append(Request(prompt, plan, Generation(max_new_tokens=6 + seed)))
    check_together(session, requests)


@pytest.mark.parametrize("name", ["internvl", "llava_next_video"])
def test_other_families(name: str) -> None:
    adapter = small_family(name)
    plans = [plan_of(), plan_of(ShrinkingPrune(), RaggedCache())]
    requests = [
        Request(family_prompt(adapter, seed), plan, Generation(max_new_tokens=5))
        for seed, plan in enumerate(plans)
    ]
    check_together(family_session(adapter), requests)


@pytest.mark.parametrize(
    ("attention", "positions"), [("sdpa", "original"), ("eager", "renumbered")]
)
@pytest.mark.parametrize("name", FAMILIES)
def test_places_in_space_and_time(name: str, attention: str, positions: str) -> None:
    adapter = small_qwen(name, attention)
    plans = [
        plan_of(),
        plan_of(ProjectedPrune(), ShrinkingPrune(), positions=positions),
        plan_of(ShrinkingPrune(), RaggedCache()),
    ]
    shown = [noise_media(0), noise_video(), noise_media(2, 140, 60)]
    questions = ("what?", "what is on the left of it?", "where?")
    requests = [
        Request(adapter.prepare(media, question), plan, Generation(max_new_tokens=4 + number))
        for number, (media, question, plan) in enumerate(zip(shown, questions, plans, strict=True))
    ]
    check_together(session_for(adapter), requests)


def test_chance_is_that_of_the_job_alone(tiny: Session, prompts: list[Prompt]) -> None:
    requests = [
        Request(
            prompt,
            plan_for(tiny, prompt, "random", 64.0),
            Generation(max_new_tokens=10, temperature=1.5, top_p=0.9, seed=seed),
        )
        for seed, prompt in enumerate(prompts)
    ]
    _, _, together = check_together(tiny, requests)
    greedy = [Request(r.prompt, r.plan, Generation(max_new_tokens=10)) for r in requests]
    plain = decode_together(tiny.adapter, [tiny.read_prompt(request) for request in greedy])
    assert [d.ids for d in together] != [d.ids for d in plain]  # chance had a say


def test_what_cannot_be_batched_says_why() -> None:
    assert alone_because(plan_of(RaggedCache()), "sdpa") is None
    assert "every_step_cache" in (alone_because(plan_of(EveryStepCache()), "sdpa") or "")
    assert "flash_attention_2" in (alone_because(plan_of(), "flash_attention_2") or "")
