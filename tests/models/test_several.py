"""Several pictures in a prompt of the families that see a picture whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import Gemma3Processor

from tests.engine.families import family_session, small_family
from tests.engine.support import QUESTION, noise_media, plan_of, small_adapter
from tests.models.tiles import answers_as_the_plain_model, encodes_each_as_alone
from vtc_cli.core.layout import Grid
from vtc_cli.core.shape import TowerInput
from vtc_cli.engine.decode import Generation
from vtc_cli.models.support.base import Adapter

SHOWN = [noise_media(0, 45, 90), noise_media(1, 80, 60), noise_media(2, 30, 30)]


@pytest.fixture(scope="module", params=["llava", "gemma3"])
def adapter(request: pytest.FixtureRequest) -> Adapter:
    return small_adapter() if request.param == "llava" else small_family(request.param)


def test_several_pictures_answer_as_the_plain_model(adapter: Adapter) -> None:
    answers_as_the_plain_model(adapter, SHOWN)


def test_each_picture_is_encoded_as_alone(adapter: Adapter) -> None:
    encodes_each_as_alone(adapter, SHOWN)


def test_each_picture_is_a_span_of_its_own(adapter: Adapter) -> None:
    prompt = adapter.prepare(SHOWN, QUESTION)
    assert prompt.layout.grids == tuple(Grid(1, 6, 6, span=span) for span in range(3))
    assert sum(seen.count for seen in prompt.tower) == 3
    assert {type(seen) for seen in prompt.tower} == {TowerInput}
    boxes = prompt.patch_boxes.reshape(3, 36, 4)
    for number, media in enumerate(SHOWN):
        alone = adapter.prepare(media, QUESTION).patch_boxes
        np.testing.assert_allclose(boxes[number], alone)
    trace = family_session(adapter).run(prompt, plan_of(), Generation(max_new_tokens=1))
    assert trace.original_tokens == 108
    assert [seen.rows[0] for seen in trace.tower] == [
        adapter.shape.patches + adapter.shape.class_tokens
    ] * 3


def test_the_prompt_of_llava_is_that_of_the_librarys_processor() -> None:
    adapter = small_adapter()
    prompt = adapter.prepare(SHOWN, QUESTION)
    text = f"USER: <image>\n<image>\n<image>\n{QUESTION} ASSISTANT:"
    pictures = [media.picture() for media in SHOWN]
    own = adapter.processor(text=text, images=pictures, return_tensors="pt")
    assert torch.equal(prompt.input_ids, own["input_ids"])
    assert torch.equal(prompt.encoder_inputs["pixel_values"], own["pixel_values"])


def test_the_prompt_of_gemma3_is_that_of_the_librarys_processor() -> None:
    """Its token types too, from which the model makes a block of its own for each picture."""
    adapter = small_family("gemma3")
    tokenizer = adapter.parts.tokenizer
    marks = {"boi": "<start_of_image>", "eoi": "<end_of_image>", "image": "<image_soft_token>"}
    for name, mark in marks.items():
        setattr(tokenizer, f"{name}_token", mark)
        setattr(tokenizer, f"{name}_token_id", tokenizer.convert_tokens_to_ids(mark))
    processor = Gemma3Processor(adapter.parts.image_processor, tokenizer, image_seq_length=36)
    start = "<start_of_image>"
    text = f"<start_of_turn>user\n{start}\n{start}\n{start}{QUESTION}<end_of_turn>\n"
    pictures = [[media.picture() for media in SHOWN]]
    own = processor(
        text=text + "<start_of_turn>model\n",
        images=pictures,
        return_tensors="pt",
        return_mm_token_type_ids=True,
    )
    prompt = adapter.prepare(SHOWN, QUESTION)
    assert torch.equal(prompt.input_ids, own["input_ids"])
    assert torch.equal(prompt.encoder_inputs["pixel_values"], own["pixel_values"])
    types = adapter.sequence_arguments(prompt.input_ids)["token_type_ids"]
    assert torch.equal(types, own["token_type_ids"])


def test_pictures_of_gemma3_see_themselves_both_ways_and_not_each_other() -> None:
    """A changed last row of the first picture moves its first token, never the other way about."""
    adapter = small_family("gemma3")
    prompt = adapter.prepare(SHOWN[:2], QUESTION)
    types = adapter.sequence_arguments(prompt.input_ids)["token_type_ids"]
    first = int(prompt.visual_index[0])

    def hidden_of(changed: int | None) -> torch.Tensor:
        output = adapter.encode(prompt)
        features = output.features.clone()
        if changed is not None:
            features[changed] += 1.0
        arguments = adapter.prefill_arguments(output, features, torch.zeros(72, dtype=torch.int64))
        model = adapter.model.model(
            input_ids=prompt.input_ids, token_type_ids=types, use_cache=True, **arguments
        )
        state: torch.Tensor = model.last_hidden_state[0, first]
        return state

    with torch.inference_mode():
        before, inside, outside = hidden_of(None), hidden_of(35), hidden_of(71)
    assert float((before - inside).abs().max()) > 1e-3
    assert torch.equal(before, outside)
