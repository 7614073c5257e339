"""VisionZip official against its algorithm written down once more, on the library's own tower.

The reference takes the tower's states and maps as the library returns them, one picture at a time:
[CLS] and the patches that it attends to most; the rest joined to evenly stepped targets by their
keys; sums before the projector; then the untouched decoder on what is left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.engine.families import family_prompt, family_session, small_family
from tests.engine.qwen_support import small_qwen
from tests.engine.support import QUESTION, noise_media, plan_of, session_of, small_adapter
from tests.tolerance import close
from vtc_cli.core.decision import Decision
from vtc_cli.core.signals import Signals
from vtc_cli.core.stage import EncoderStage
from vtc_cli.core.tokens import TokenTable
from vtc_cli.engine.decode import Generation
from vtc_cli.engine.encode import encode
from vtc_cli.engine.reading import Request
from vtc_cli.models.llava import LlavaAdapter
from vtc_cli.models.support.prompt import Prompt
from vtc_cli.stages.fastervlm import ClsAttention
from vtc_cli.stages.visionzip import DominantContextual

FAMILIES = ["gemma3", "internvl", "smolvlm", "llava_next", "llava_next_video", "qwen2_5_vl"]
LAYER = 2  # of 4: the features are the output of this layer


@pytest.fixture(scope="module")
def adapter() -> LlavaAdapter:
    return small_adapter()


@pytest.fixture(scope="module")
def eager() -> LlavaAdapter:
    """The same weights where the library gives its maps."""
    return small_adapter("eager")


@pytest.fixture(scope="module")
def prompt(adapter: LlavaAdapter) -> Prompt:
    return adapter.prepare(noise_media(), QUESTION)


def zipped(adapter: LlavaAdapter, pixels: Tensor, dominant: int, contextual: int) -> Tensor:
    """(dominant + contextual, d_vision) rows that the official code gives the projector."""
    tower = adapter.model.model.vision_tower
    read = tower(pixels, output_attentions=True, output_hidden_states=True)
    block = adapter.tower_layers[LAYER]
    states = read.hidden_states[LAYER + 1][0]  # the first entry is the embedding
    keys = block.self_attn.k_proj(block.layer_norm1(read.hidden_states[LAYER][0]))
    metric = keys.view(len(states), block.self_attn.num_heads, -1).mean(dim=1).double().numpy()
    cls = read.attentions[LAYER][0][:, 0, 1:].sum(dim=0)
    chosen = sorted([0, *(cls.topk(dominant - 1).indices + 1).tolist()])
    rest = [row for row in range(len(states)) if row not in chosen]
    targets = rest[:: max(1, len(rest) // contextual)][:contextual]
    joined: dict[int, list[int]] = {target: [] for target in targets}
    unit = metric / np.linalg.norm(metric, axis=1, keepdims=True)
    for row in (row for row in rest if row not in targets):
        joined[targets[int(np.argmax(unit[targets] @ unit[row]))]].append(row)
    sums = [
        states[target] + (states[members].mean(dim=0) if members else 0)
        for target, members in joined.items()
    ]
    return torch.cat([states[chosen], torch.stack(sums)])


@pytest.mark.parametrize(("tokens", "contextual"), [(24, 6), (12, 3), (6, 1)])
def test_the_answer_is_that_of_the_official_algorithm(
    adapter: LlavaAdapter, eager: LlavaAdapter, prompt: Prompt, tokens: int, contextual: int
) -> None:
    stage = DominantContextual(
        attention_layer=LAYER,
        tokens=tokens,
        contextual_ratio=contextual / tokens,
        fidelity="official",
    )
    plan = plan_of(stage, fidelity="official", positions="renumbered")
    model, session = eager.model, session_of(adapter)
    scene = session._scene(session._empty_trace(prompt, plan), prompt, 0)
    with torch.inference_mode():
        table = encode(adapter, prompt, plan, scene).table
        pixels = prompt.encoder_inputs["pixel_values"]
        rows = zipped(eager, pixels, tokens - contextual, contextual)
        features = model.model.multi_modal_projector(rows[None])[0]
        close(table.features, features, model=adapter)
        places, text = prompt.visual_index, model.get_input_embeddings()(prompt.input_ids)[0]
        embedded = torch.cat([text[: places[0]], features, text[places[-1] + 1 :]])
        logits = model(inputs_embeds=embedded[None], use_cache=False).logits[0, -1]
    trace, decoded = session._pass(Request(prompt, plan, Generation(max_new_tokens=1)))
    close(decoded.logits[0], logits, model=adapter)
    assert trace.visual_tokens[0] == tokens
    halved = torch.cat([features[:-contextual], features[-contextual:] / 2])
    embedded = torch.cat([text[: places[0]], halved, text[places[-1] + 1 :]])
    with torch.inference_mode():
        other = model(inputs_embeds=embedded[None], use_cache=False).logits[0, -1]
    assert float((other - logits).abs().max()) > 1e-3  # the sums are seen in the answer


def test_each_of_several_pictures_has_a_class_token_of_its_own(
    adapter: LlavaAdapter, eager: LlavaAdapter
) -> None:
    media = [noise_media(seed) for seed in (1, 2)]
    prompt = adapter.prepare(media, QUESTION)
    stage = DominantContextual(
        attention_layer=LAYER, tokens=12, contextual_ratio=0.25, fidelity="official"
    )
    plan, session = plan_of(stage, positions="renumbered"), session_of(adapter)
    scene = session._scene(session._empty_trace(prompt, plan), prompt, 0)
    with torch.inference_mode():
        table = encode(adapter, prompt, plan, scene).table
        rows = [zipped(eager, one.inputs["pixel_values"], 9, 3) for one in prompt.seen]
        close(
            table.features,
            adapter.model.model.multi_modal_projector(torch.cat(rows)[None])[0],
            model=adapter,
        )


def test_rows_that_nothing_changed_are_not_projected_again(
    adapter: LlavaAdapter, prompt: Prompt
) -> None:
    """And the cost of those that are stands in the record."""
    stage = DominantContextual(attention_layer=LAYER, tokens=12, contextual_ratio=0.25)
    kept = ClsAttention(attention_layer=LAYER, tokens=9)
    session = session_of(adapter)
    tables, records = [], []
    for each in (stage, kept):
        trace = session._empty_trace(prompt, plan_of(each))
        with torch.inference_mode():
            tables.append(encode(adapter, prompt, plan_of(each), session._scene(trace, prompt, 0)))
        records.append(trace.records[0])
    merged = tables[0].table
    alone = merged.size == 1
    place = {int(anchor): row for row, anchor in enumerate(tables[1].table.anchor)}
    dominant = [row for row in range(12) if int(merged.anchor[row]) in place]
    assert len(dominant) == 9 and bool(alone[dominant].all())
    same = [place[int(merged.anchor[row])] for row in dominant]
    assert torch.equal(merged.features[dominant], tables[1].table.features[same])
    weights = sum(inputs * outputs for inputs, outputs in adapter.shape.projector)
    spent = records[0].signal_flops - records[1].signal_flops
    assert spent == 2 * weights * int((~alone).sum())


@dataclass(frozen=True, kw_only=True)
class Turned(EncoderStage):
    """Puts the rows that enter the projector in the opposite order."""

    before_projector: ClassVar[bool] = True

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        every = torch.arange(len(tokens))
        return Decision.prune(every, len(tokens), features=tokens.features.flip(0))


@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_stage_changes_is_projected_as_the_family_does(name: str) -> None:
    joined = name.startswith("qwen")
    adapter = small_qwen(name) if joined else small_family(name)
    prompt = adapter.prepare(noise_media(), QUESTION) if joined else family_prompt(adapter)
    session, tables = family_session(adapter), []
    for plan in (plan_of(), plan_of(Turned())):
        scene = session._scene(session._empty_trace(prompt, plan), prompt, 0)
        with torch.inference_mode():
            tables.append(encode(adapter, prompt, plan, scene).table)
    plain, turned = tables
    both = ~(plain.protected | plain.protected.flip(0))  # learned tokens have no row of their own
    assert int(both.sum()) > 1 and plain.layout.spans == 1
    close(turned.features[both], plain.features.flip(0)[both], model=adapter)
    assert float((turned.features - plain.features)[both].abs().max()) > 1e-3
