"""Masks with structure: blocks that see both ways, windows, and tokens that change their order."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from tests.engine.families import (
    LAYERS,
    family_oracle,
    family_prompt,
    own_arguments,
    own_logits,
    small_family,
)
from tests.engine.support import STEPS, Hidden, ShrinkingPrune, plan_of
from tests.engine.test_families import EFFECT, run
from tests.engine.test_oracle import alive_per_layer, alive_to_hidden
from tests.tolerance import close
from vtc_cli.core.decision import Decision
from vtc_cli.core.signals import Signals
from vtc_cli.core.stage import PrefillStage
from vtc_cli.core.tokens import TokenTable
from vtc_cli.engine.prefill import cut_mask
from vtc_cli.engine.tap import AttentionTap

WINDOW = 50  # less than the prompt, more than the text behind the picture


def seen(size: int, *, block: range = range(0), window: int = 1000) -> Tensor:
    """A mask written out place by place."""
    mask = torch.zeros(1, 1, size, size, dtype=torch.bool)
    for row in range(size):
        for column in range(size):
            together = row in block and column in block
            mask[0, 0, row, column] = (column <= row or together) and row - column < window
    return mask


@pytest.mark.parametrize("entry", [[0, 1, 3, 5], [0, 3, 1, 5], [5, 3, 1, 0]])
def test_a_causal_mask_is_causal_in_the_order_as_it_stands(entry: list[int]) -> None:
    assert torch.equal(cut_mask(seen(6), torch.tensor(entry)), seen(4))


def test_a_block_shrinks_with_its_tokens() -> None:
    whole = seen(8, block=range(2, 6))
    assert torch.equal(
        cut_mask(whole, torch.tensor([0, 1, 2, 5, 6, 7])), seen(6, block=range(2, 4))
    )
    turned = cut_mask(whole, torch.tensor([0, 1, 5, 2, 6, 7]))
    assert torch.equal(turned, seen(6, block=range(2, 4)))


def test_a_window_stays_with_its_tokens() -> None:
    """Tokens 0, 2, 3, 7 under a window of 4: 3 still sees 0; 7 sees nobody but itself."""
    cut = cut_mask(seen(8, window=4), torch.tensor([0, 2, 3, 7]))
    by_hand = [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 1]]
    assert torch.equal(cut[0, 0], torch.tensor(by_hand, dtype=torch.bool))


def test_an_additive_mask_is_cut_alike() -> None:
    whole, entry = seen(8, block=range(2, 6), window=5), torch.tensor([0, 4, 2, 7])
    additive = torch.zeros(1, 1, 8, 8).masked_fill(~whole, -9.0)
    assert torch.equal(cut_mask(additive, entry) == 0, cut_mask(whole, entry))


@dataclass(frozen=True, kw_only=True)
class Turning(PrefillStage):
    """Drops every third token and may turn the others round."""

    layers: tuple[int, ...] = (2,)
    turned: bool = True

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        index = torch.arange(len(tokens))
        keep = index[index % 3 != 0]
        return Decision.prune(keep.flip(0) if self.turned else keep, len(tokens))


def test_the_order_inside_a_block_that_sees_both_ways_is_indifferent() -> None:
    adapter = small_family("gemma3")
    prompt = family_prompt(adapter)
    _, straight = run(adapter, prompt, plan_of(Turning(turned=False)), list(range(65, 75)))
    _, turned = run(adapter, prompt, plan_of(Turning()), list(range(65, 75)))
    close(straight, turned, model=adapter)


def test_rows_of_the_tap_are_the_eager_rows_under_blocks_and_windows() -> None:
    adapter = small_family("gemma3", sliding_window=20)
    prompt = family_prompt(adapter)
    arguments = own_arguments(adapter, prompt)
    modules = [(adapter.decoder_attention(layer), layer) for layer in range(LAYERS)]
    index = torch.arange(prompt.prompt_tokens)
    with torch.inference_mode(), AttentionTap(modules, "sdpa") as tap:
        adapter.model(input_ids=prompt.input_ids, **arguments)
        rows = [tap.captures[layer].rows(index) for layer in range(LAYERS)]
    adapter.model.set_attn_implementation("eager")
    with torch.inference_mode():
        output = adapter.model(input_ids=prompt.input_ids, **arguments, output_attentions=True)
    first, last = int(prompt.visual_index[0]), int(prompt.visual_index[10])
    assert float(rows[0][:, first, last].min()) > 0  # the block: an earlier token sees a later one
    assert float(rows[0][:, -1, 0].max()) == 0  # the window of layer 0
    assert float(rows[5][:, -1, 0].min()) > 0  # layer 5 has none
    for ours, own in zip(rows, output.attentions, strict=True):
        close(ours, own[0], model=adapter)


def test_windows_shorter_than_the_prompt_hide_what_the_plain_model_hides() -> None:
    adapter = small_family("gemma3", sliding_window=WINDOW)
    prompt = family_prompt(adapter)
    assert prompt.prompt_tokens > WINDOW
    tokens = list(range(70, 70 + STEPS))
    _, kept = run(adapter, prompt, plan_of(), tokens)
    full = own_logits(adapter, prompt, tokens)
    close(kept, full, model=adapter)
    trace, ours = run(adapter, prompt, plan_of(ShrinkingPrune()), tokens)
    hidden = Hidden(prefill=alive_to_hidden(alive_per_layer(trace, LAYERS), prompt))
    with family_oracle(adapter, hidden, prompt.prompt_tokens):
        masked = own_logits(adapter, prompt, tokens, library_cache=False)
    close(ours, masked, model=adapter)
    assert float((ours - full).abs().max()) > EFFECT
    wide = small_family("gemma3")
    assert float((own_logits(wide, prompt, tokens) - full).abs().max()) > EFFECT


def test_eager_attention_under_blocks_and_windows_is_the_same() -> None:
    tokens = list(range(70, 80))
    logits = []
    for attention in ("sdpa", "eager"):
        adapter = small_family("gemma3", attention, sliding_window=WINDOW)
        logits.append(run(adapter, family_prompt(adapter), plan_of(ShrinkingPrune()), tokens)[1])
    close(*logits, model=adapter)
