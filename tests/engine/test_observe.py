"""What an observer is shown equals what the plain model says of itself; a run shows nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.engine.support import (
    QUESTION,
    AttentionPrune,
    ShrinkingPrune,
    TowerPrune,
    noise_media,
    plan_of,
    session_of,
    small_adapter,
)
from tests.tolerance import close
from vtc_cli.core.errors import MeasurementError
from vtc_cli.core.observe import LayerView, Observer
from vtc_cli.core.plan import Plan
from vtc_cli.core.trace import Trace
from vtc_cli.engine.decode import Generation
from vtc_cli.engine.hooks import HookSet
from vtc_cli.metrics.layers import LayerFigures, layer_observer
from vtc_cli.models.llava import LlavaAdapter
from vtc_cli.models.support.prompt import Prompt

ONE = Generation(max_new_tokens=1)
KEEP = Observer(lambda view: view, "hidden", attention=True)


@pytest.fixture(scope="module")
def adapter() -> LlavaAdapter:
    return small_adapter()


@pytest.fixture(scope="module")
def prompt(adapter: LlavaAdapter) -> Prompt:
    return adapter.prepare(noise_media(), QUESTION)


@pytest.fixture(scope="module")
def plain(prompt: Prompt) -> Any:
    """The library's own hidden states and attention maps, under eager attention."""
    with torch.inference_mode():
        return small_adapter("eager").model(
            input_ids=prompt.input_ids,
            pixel_values=prompt.encoder_inputs["pixel_values"],
            output_hidden_states=True,
            output_attentions=True,
        )


def observe(adapter: LlavaAdapter, prompt: Prompt, plan: Plan, observer: Observer) -> Trace:
    return session_of(adapter).run(prompt, plan, ONE, observer=observer)


def rank_by_numpy(matrix: Any, tau: float) -> tuple[int, float, float, int, float]:
    values = np.linalg.svd(matrix.double().numpy(), compute_uv=False)
    share = values / values.sum()
    energy = np.cumsum(values**2) / (values**2).sum()
    return (
        int((values > tau * values[0]).sum()),
        float(np.exp(-(share * np.log(share)).sum())),
        float((values**2).sum() / values[0] ** 2),
        int(np.searchsorted(energy, 0.99) + 1),
        float(values.sum()),
    )


def test_ranks_of_the_full_model_are_those_of_its_hidden_states(
    adapter: LlavaAdapter, prompt: Prompt, plain: Any
) -> None:
    tau = 0.05
    trace = observe(adapter, prompt, Plan("full"), layer_observer("hidden", tau))
    assert [figures.layer for figures in trace.observed] == list(range(6))
    for layer in range(5):  # the library norms the last hidden state, so that one is apart
        rows = plain.hidden_states[layer + 1][0, prompt.visual_index]
        expected = rank_by_numpy(rows, tau)
        found = trace.observed[layer].ranks
        assert (found.rank, found.energy_rank, found.tau) == (expected[0], expected[3], tau)
        close(np.float32(found.effective_rank), expected[1], model=adapter)
        close(np.float32(found.stable_rank), expected[2], model=adapter)
        close(np.float32(found.nuclear_norm), expected[4], model=adapter)
    last = observe(adapter, prompt, Plan("full"), KEEP).observed[5].hidden
    normed = plain.hidden_states[6][0, prompt.visual_index]
    close(adapter.decoder.norm(last), normed, model=adapter)


def test_attention_is_that_of_the_eager_maps(
    adapter: LlavaAdapter, prompt: Prompt, plain: Any
) -> None:
    trace = observe(adapter, prompt, Plan("full"), layer_observer(None))
    behind = int(prompt.visual_index.max()) + 1
    for layer, figures in enumerate(trace.observed):
        rows = plain.attentions[layer][0, :, behind:][:, :, prompt.visual_index].double()
        mass = rows.sum(-1).mean(-1)
        close(np.float32([head.mass for head in figures.heads]), mass, model=adapter)
        close(np.float32(figures.attention_mass), mass.mean(), model=adapter)
        share = (rows / rows.sum(-1, keepdim=True)).numpy()
        entropy = -(share * np.log(share)).sum(-1).mean(-1)
        close(np.float32([head.entropy for head in figures.heads]), entropy, model=adapter)
        assert figures.ranks is None


def test_attention_output_is_what_enters_the_output_projection(
    adapter: LlavaAdapter, prompt: Prompt
) -> None:
    seen: dict[int, torch.Tensor] = {}
    handles = [
        adapter.decoder_attention(layer).o_proj.register_forward_pre_hook(
            lambda module, args, layer=layer: seen.update({layer: args[0][0].clone()})
        )
        for layer in range(6)
    ]
    trace = observe(adapter, prompt, Plan("full"), Observer(lambda view: view, "attention_output"))
    for handle in handles:
        handle.remove()
    for view in trace.observed:
        assert torch.equal(view.attention_output, seen[view.layer][prompt.visual_index])
        assert view.hidden is None and view.attention is None


@pytest.mark.parametrize("stages", [(ShrinkingPrune(),), (TowerPrune(), AttentionPrune())])
def test_layers_under_a_recipe_show_the_tokens_that_they_process(
    adapter: LlavaAdapter, prompt: Prompt, stages: tuple[Any, ...]
) -> None:
    trace = observe(adapter, prompt, plan_of(*stages), KEEP)
    ordinary = session_of(adapter).run(prompt, plan_of(*stages), ONE)
    assert torch.equal(trace.first_logits, ordinary.first_logits)  # type: ignore[arg-type]
    counts = [view.hidden.shape[0] for view in trace.observed]
    assert counts == trace.visual_tokens == ordinary.visual_tokens
    assert torch.equal(trace.observed[-1].anchor, trace.records[-1].anchor)
    for view in trace.observed:
        assert view.attention.shape[2] == view.hidden.shape[0]


def test_an_ordinary_run_captures_nothing(
    adapter: LlavaAdapter, prompt: Prompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> None:
        raise AssertionError("a hook behind a layer in an ordinary run")

    monkeypatch.setattr(HookSet, "after", refuse)
    trace = session_of(adapter).run(prompt, plan_of(ShrinkingPrune()), ONE)
    assert trace.observed == [] and trace.captured == {}
    with pytest.raises(AssertionError):
        observe(adapter, prompt, Plan("full"), KEEP)


def test_only_the_asked_matrix_taps_attention() -> None:
    assert not layer_observer("hidden", attention=False).taps_attention
    assert layer_observer("attention_output", attention=False).taps_attention
    assert layer_observer(None).taps_attention


def test_nan_names_the_layer(adapter: LlavaAdapter, prompt: Prompt) -> None:
    broken = small_adapter()
    with torch.no_grad():
        broken.decoder_layers[3].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(MeasurementError) as caught:
        observe(broken, prompt, Plan("full"), layer_observer("hidden"))
    assert caught.value.where == "decoder layer 3"


def test_a_layer_without_visual_tokens_has_no_ranks() -> None:
    from vtc_cli.metrics.layers import layer_figures

    view = LayerView(4, torch.zeros(0, dtype=torch.int64), hidden=torch.zeros(0, 8))
    assert layer_figures(view) == LayerFigures(4, 0, None, ())


def test_compressing_stops_at_the_last_stage_with_the_tokens_of_the_run(
    adapter: LlavaAdapter, prompt: Prompt
) -> None:
    plan = plan_of(TowerPrune(), ShrinkingPrune())
    run = observe(adapter, prompt, plan, KEEP)
    deeper: list[int] = []
    handle = adapter.decoder_layers[4].register_forward_hook(lambda *_: deeper.append(4))
    done = session_of(adapter).compress(prompt, plan)
    handle.remove()
    assert deeper == []
    assert [r.after for r in done.trace.records] == [r.after for r in run.records]
    assert torch.equal(done.final.anchor, run.records[-1].anchor)
    before = run.observed[3]
    rows = before.hidden[torch.isin(before.anchor, done.final.anchor)]
    assert torch.equal(done.final.features, rows)
    assert len(done.entering) == run.visual_tokens[0]


def test_given_tokens_replace_the_tower(adapter: LlavaAdapter, prompt: Prompt) -> None:
    session = session_of(adapter)
    direct = session.run(prompt, plan_of(TowerPrune()), ONE)
    entering = session.compress(prompt, plan_of(TowerPrune())).entering
    blind = adapter.prepare(noise_media(9), QUESTION)
    fed = session.run(blind, Plan("full"), ONE, tokens=entering)
    assert torch.equal(fed.first_logits, direct.first_logits)  # type: ignore[arg-type]
    assert fed.tower == []
