"""Operations: closed forms, a known model size, and the library's own counter."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from tests.report.traces import MERGED, SHAPE, compressed, full
from vtc_cli.core.shape import ModelShape, TowerInput, TowerPass, TransformerShape
from vtc_cli.metrics.flops import (
    compression_flops,
    decode_step_flops,
    full_flops,
    layer_flops,
    prefill_flops,
    projector_flops,
    trace_flops,
    vision_flops,
)

LLAVA_7B = ModelShape(
    vision=TransformerShape(24, 1024, 16, 16, 64, 4096, False),
    patch_inputs=588,
    patches=576,
    class_tokens=1,
    feature_layers=23,
    projector=((1024, 4096), (4096, 4096)),
    decoder=TransformerShape(32, 4096, 32, 32, 128, 11008, True, 32064),
)
PROMPT = 576 + 12

TOWER = TowerInput(1, 24, 24)


@pytest.fixture(scope="module")
def model() -> LlavaForConditionalGeneration:
    """A small random LLaVA with grouped-query attention and a 24 x 24 grid."""
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=6,
        num_attention_heads=4,
        image_size=96,
        patch_size=4,
    )
    text = LlamaConfig(
        hidden_size=128,
        intermediate_size=344,
        num_hidden_layers=12,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=512,
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=511)
    config._attn_implementation = "sdpa"
    return LlavaForConditionalGeneration(config).eval()


def counted(call):  # type: ignore[no-untyped-def]
    """Operations of `call` by the library's counter.

    Its CPU flash kernel is unknown to the counter; the math backend is the same computation.
    """
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        result = call()
    return counter.get_total_flops(), result


def test_agrees_with_the_librarys_counter(model: LlavaForConditionalGeneration) -> None:
    """Vision and projector, prefill and one decode step are each within 1 %."""
    expected = full_flops(SHAPE, PROMPT, [TOWER])
    pixels = torch.randn(1, 3, 96, 96)
    seen, _ = counted(lambda: model.model.get_image_features(pixels))
    assert seen == pytest.approx(expected.vision + expected.projector, rel=0.01)
    ids = torch.arange(PROMPT)[None] % 500
    seen, output = counted(lambda: model(input_ids=ids, use_cache=True, logits_to_keep=1))
    assert seen == pytest.approx(expected.prefill, rel=0.01)
    cache = output.past_key_values
    seen, _ = counted(lambda: model(input_ids=ids[:, :1], past_key_values=cache))
    assert seen == pytest.approx(expected.decode_step, rel=0.01)


def test_layer_by_hand() -> None:
    """Width 8, 2 heads of 4, 1 key/value head, MLP 16 gated, 3 queries, 5 keys."""
    shape = TransformerShape(1, 8, 2, 1, 4, 16, True)
    projections = 2 * 3 * 8 * (8 + 4 + 4 + 8)
    attention = 2 * (2 * 3 * 5 * 4) * 2
    mlp = 3 * 2 * 3 * 8 * 16
    assert layer_flops(shape, 3, 5) == projections + attention + mlp


def test_llama_7b_is_twice_its_parameters_a_token() -> None:
    """One decode step without cache is 2 x 6.6e9 weights (embeddings apart)."""
    blocks = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    step = decode_step_flops(LLAVA_7B, [0] * 32)
    assert step == pytest.approx(2 * (blocks + 4096 * 32064), rel=0.001)
    assert 2 * 6.4e9 < step < 2 * 6.8e9


def test_llava_7b_has_the_published_magnitude() -> None:
    """A prompt of 576 + 64 tokens costs some 8.5e12 operations, the tower some 0.35e12."""
    figures = full_flops(LLAVA_7B, 640, [TOWER])
    assert 8.0e12 < figures.prefill < 9.0e12
    assert 0.33e12 < figures.vision < 0.40e12
    assert figures.projector == 2 * 576 * (1024 * 4096 + 4096 * 4096)
    assert figures.first_token == figures.vision + figures.projector + figures.prefill


def test_head_counts_one_row() -> None:
    """Without any layer only one row of the output head is left."""
    assert prefill_flops(SHAPE, []) == 2 * 128 * 512


def test_decode_step_reads_the_new_entry_too() -> None:
    """With 9 cached entries the query looks at 10."""
    expected = 12 * layer_flops(SHAPE.decoder, 1, 10) + 2 * 128 * 512
    assert decode_step_flops(SHAPE, [9] * 12) == expected


def test_pictures_attend_to_themselves() -> None:
    """Two frames cost twice one frame, not four times the attention."""
    one, two = (TowerPass(replace(TOWER, count=count), [577] * 6) for count in (1, 2))
    assert vision_flops(SHAPE, [two]) == 2 * vision_flops(SHAPE, [one])


def test_full_pass_equals_the_full_model() -> None:
    """The trace of the full model has the computed figures of the full model."""
    assert trace_flops(full()) == full_flops(SHAPE, 596, [TOWER])


def test_compressed_pass_counts_what_each_layer_processed() -> None:
    """Merged tokens are not projected; the prefill follows its own lengths."""
    figures = trace_flops(compressed())
    lengths = [MERGED + 20] * 2 + [160] * 4 + [51] * 6
    assert figures.projector == projector_flops(SHAPE, MERGED)
    assert figures.prefill == prefill_flops(SHAPE, lengths)
    assert figures.decode_step == decode_step_flops(SHAPE, lengths)


def test_compression_adds_signals_decisions_and_means() -> None:
    """Four signals of 1000, one decision of 99, a mean of all 576 rows at tower width 64."""
    assert compression_flops(compressed()) == 4 * 1000 + 99 + 2 * 576 * 64
