"""Every family against the untouched model: bit-equal with everything kept, masked when not.

Each prune moves the logits by more than 1e-2.
"""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from tests.engine.families import (
    CASES,
    LAYERS,
    Case,
    case_prompt,
    eager_copy,
    family_oracle,
    family_session,
    own_arguments,
    own_logits,
    small_family,
)
from tests.engine.probes import ProbeRows
from tests.engine.support import (
    STEPS,
    AttentionPrune,
    Hidden,
    KeepAll,
    ProjectedPrune,
    RaggedCache,
    ShrinkingPrune,
    TowerPrune,
    plan_of,
)
from tests.engine.test_oracle import alive_per_layer, alive_to_hidden
from tests.tolerance import close
from vtc_cli.core.decision import Decision
from vtc_cli.core.errors import StageError
from vtc_cli.core.plan import Plan
from vtc_cli.core.tokens import TokenTable
from vtc_cli.core.trace import Trace
from vtc_cli.engine.decode import Generation
from vtc_cli.engine.reading import Request
from vtc_cli.engine.sequence import enter
from vtc_cli.models.support.base import Adapter
from vtc_cli.models.support.prompt import Prompt

EFFECT = 1e-2


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def adapter(case: Case) -> Adapter:
    return small_family(case.family)


@pytest.fixture(scope="module")
def prompt(adapter: Adapter, case: Case) -> Prompt:
    return case_prompt(adapter, case)


@pytest.fixture(scope="module")
def free_run(adapter: Adapter, prompt: Prompt) -> tuple[list[int], Tensor]:
    """Tokens and logits of the library's own greedy answer."""
    generated = adapter.model.generate(
        input_ids=prompt.input_ids,
        **own_arguments(adapter, prompt),
        max_new_tokens=STEPS + 1,
        do_sample=False,
    )
    tokens = generated[0, prompt.prompt_tokens :].tolist()
    return tokens, own_logits(adapter, prompt, tokens)


def run(
    adapter: Adapter, prompt: Prompt, plan: Plan, forced: list[int] | None = None
) -> tuple[Trace, Tensor]:
    chosen = None if forced is None else tuple(forced)
    generation = Generation(max_new_tokens=STEPS + 1, forced=chosen)
    trace, decoded = family_session(adapter)._pass(Request(prompt, plan, generation))
    return trace, torch.stack(decoded.logits)


@pytest.mark.parametrize("plan", [plan_of(), plan_of(KeepAll())], ids=["no stages", "keep all"])
def test_keeping_everything_is_the_plain_model_bit_for_bit(
    adapter: Adapter, prompt: Prompt, free_run: tuple[list[int], Tensor], plan: Plan
) -> None:
    tokens, logits = free_run
    trace, ours = run(adapter, prompt, plan)
    assert trace.answer_ids == tokens
    assert torch.equal(ours, logits)


PRUNES = {
    "at two layers": (ShrinkingPrune(),),
    "at layer 0": (ShrinkingPrune(layers=(0,)),),
    "behind the projector": (ProjectedPrune(),),
    "everywhere": (ProjectedPrune(), ShrinkingPrune(layers=(1, 3)), AttentionPrune(layers=(5,))),
    "by attention": (AttentionPrune(),),
}


@pytest.mark.parametrize("name", PRUNES)
def test_pruning_equals_the_masked_full_model(
    adapter: Adapter, prompt: Prompt, free_run: tuple[list[int], Tensor], name: str
) -> None:
    tokens, full = free_run
    trace, ours = run(adapter, prompt, plan_of(*PRUNES[name]), tokens)
    alive = alive_per_layer(trace, LAYERS)
    assert [len(alive[layer]) for layer in range(LAYERS)] == trace.visual_tokens
    hidden = Hidden(prefill=alive_to_hidden(alive, prompt))
    with family_oracle(adapter, hidden, prompt.prompt_tokens):
        masked = own_logits(adapter, prompt, tokens)
    close(ours, masked, model=adapter)
    assert float((ours - full).abs().max()) > EFFECT


def test_prune_and_cache_policy_equal_the_masked_full_model(
    adapter: Adapter, prompt: Prompt, free_run: tuple[list[int], Tensor]
) -> None:
    tokens, full = free_run
    trace, ours = run(adapter, prompt, plan_of(ShrinkingPrune(), RaggedCache()), tokens)
    prefill = alive_to_hidden(alive_per_layer(trace, LAYERS), prompt)
    decode, index = {}, torch.arange(prompt.layout.tokens)
    for layer, columns in prefill.items():
        flags = columns.expand(STEPS, 2, -1).clone()
        for head in (0, 1):
            flags[:, head, prompt.visual_index[index % (3 + head) == 0]] = True
        decode[layer] = flags
    with family_oracle(adapter, Hidden(prefill, decode), prompt.prompt_tokens):
        masked = own_logits(adapter, prompt, tokens)
    close(ours, masked, model=adapter)
    assert float((ours - full)[1:].abs().max()) > EFFECT


def test_renumbering_an_unpruned_prompt_changes_nothing_and_a_pruned_one_much(
    adapter: Adapter, prompt: Prompt, free_run: tuple[list[int], Tensor]
) -> None:
    tokens, logits = free_run
    _, ours = run(adapter, prompt, plan_of(KeepAll(), positions="renumbered"), tokens)
    close(ours, logits, model=adapter)
    _, original = run(adapter, prompt, plan_of(ShrinkingPrune()), tokens)
    _, renumbered = run(adapter, prompt, plan_of(ShrinkingPrune(), positions="renumbered"), tokens)
    assert float((original - renumbered).abs().max()) > EFFECT


def test_the_text_is_never_touched(adapter: Adapter, prompt: Prompt) -> None:
    trace, _ = run(adapter, prompt, plan_of(ProjectedPrune(), ShrinkingPrune()))
    visual = prompt.layout.tokens
    text = prompt.prompt_tokens - visual
    assert [a - b for a, b in zip(trace.sequence_tokens, trace.visual_tokens, strict=True)] == [
        text
    ] * LAYERS
    table = TokenTable.from_layout(torch.zeros(visual, 4), prompt.layout)
    kept = table.protected.clone()
    kept[[3, 15]] = True
    table = table.apply(Decision.prune(kept.nonzero()[:, 0], visual))
    entry = enter(prompt, table, renumbered=False)
    stays = torch.ones(prompt.prompt_tokens, dtype=torch.bool)
    stays[prompt.visual_index] = False
    stays[prompt.visual_index[kept]] = True
    assert torch.equal(entry.input_ids, prompt.input_ids[:, stays])
    assert torch.equal(entry.position_ids, prompt.position_ids[:, stays])
    assert entry.next_position.tolist() == [[prompt.prompt_tokens]]


def test_carried_features_answer_as_the_towers_own(adapter: Adapter, prompt: Prompt) -> None:
    session = family_session(adapter)
    with torch.inference_mode():
        features = adapter.encode(prompt).features
    table = TokenTable.from_layout(features.clone(), prompt.layout)
    direct = session.run(prompt, plan_of(), Generation(max_new_tokens=2))
    carried = session.run(prompt, plan_of(), Generation(max_new_tokens=2), tokens=table)
    assert torch.equal(direct.first_logits, carried.first_logits)  # type: ignore[arg-type]


def test_hooks_are_removed_also_after_an_error(adapter: Adapter, prompt: Prompt) -> None:
    run(adapter, prompt, plan_of(AttentionPrune(), RaggedCache()))
    if adapter.shape.between:
        with pytest.raises(StageError, match=re.escape(adapter.shape.between)):
            run(adapter, prompt, plan_of(TowerPrune()))
    modules = adapter.model.modules()
    assert not [m for m in modules if m._forward_pre_hooks or _ours(m)]


def _ours(module: torch.nn.Module) -> list[object]:
    """Hooks behind a module that are not the library's own recorders of outputs."""
    hooks = module._forward_hooks.values()
    return [hook for hook in hooks if hook.__module__.startswith("vtc_cli")]


def test_attention_rows_are_those_of_the_eager_maps(adapter: Adapter, prompt: Prompt) -> None:
    trace, _ = run(adapter, prompt, plan_of(ProbeRows()))
    eager = eager_copy(adapter)
    with torch.inference_mode():
        maps = eager.model(
            input_ids=prompt.input_ids, **own_arguments(adapter, prompt), output_attentions=True
        ).attentions
    after = int(prompt.visual_index[-1]) + 1
    for record in trace.records:
        own = maps[record.layer - 1][0, :, after:][:, :, prompt.visual_index].mean(dim=(0, 1))
        close(record.decision.scores, own, model=adapter)
