"""Sizes that the adapters state, against the library's own counter of operations."""

from __future__ import annotations

import pytest
import torch

from tests.engine.families import (
    CASES,
    case_prompt,
    family_session,
    own_arguments,
    small_family,
)
from tests.metrics.test_flops import counted
from vtc_cli.core.plan import Plan
from vtc_cli.engine.decode import Generation
from vtc_cli.metrics.flops import full_flops, trace_flops


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_the_librarys_counter(name: str) -> None:
    """Vision and projector, prefill and one decode step are each within 1 %."""
    adapter = small_family(CASES[name].family)
    prompt = case_prompt(adapter, CASES[name])
    expected = full_flops(adapter.shape, prompt.prompt_tokens, prompt.tower)
    vision = expected.vision + expected.projector
    seen, _ = counted(lambda: adapter.encode(prompt))
    assert seen == pytest.approx(vision, rel=0.01)
    arguments = own_arguments(adapter, prompt) | {"use_cache": True, "logits_to_keep": 1}
    seen, output = counted(lambda: adapter.model(input_ids=prompt.input_ids, **arguments))
    assert seen == pytest.approx(vision + expected.prefill, rel=0.01)
    ids = torch.tensor([[65]])
    cache = output.past_key_values
    seen, _ = counted(lambda: adapter.model(input_ids=ids, past_key_values=cache))
    assert seen == pytest.approx(expected.decode_step, rel=0.01)
    trace = family_session(adapter).run(prompt, Plan("full"), Generation(max_new_tokens=2))
    assert trace_flops(trace) == expected


@pytest.mark.parametrize("name", ["llava_next_video two", "llava_onevision both"])
def test_agrees_with_the_librarys_counter_where_frames_are_not_pooled(name: str) -> None:
    """The projector of LLaVA-NeXT-Video then reads four times as many rows."""
    adapter = small_family(CASES[name].family)
    prompt = adapter.unpooled(case_prompt(adapter, CASES[name]))
    expected = full_flops(adapter.shape, prompt.prompt_tokens, prompt.tower)
    seen, _ = counted(lambda: adapter.encode(prompt))
    assert seen == pytest.approx(expected.vision + expected.projector, rel=0.001)
