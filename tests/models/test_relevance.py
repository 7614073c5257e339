"""Pairs of encoders score frames as the library's own joint model does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPProcessor, Siglip2Processor, SiglipProcessor

from tests.models import pairs
from tests.tolerance import close
from vtc_cli.core.errors import ModelError, SignalError
from vtc_cli.core.media import Media
from vtc_cli.core.signals import Produced
from vtc_cli.engine.relevance import given_relevance
from vtc_cli.models.support import relevance
from vtc_cli.models.support.offline import random_llava
from vtc_cli.models.support.relevance import Pair, load_pair

CPU = torch.device("cpu")
QUESTION = "what moves ? a red circle"


def clip(frames: int = 5) -> Media:
    """Frames of noise with different means."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (frames, 40, 56, 3))
    pixels = pixels * np.linspace(0.1, 1.0, frames)[:, None, None, None]
    times = tuple(float(index) for index in range(frames))
    return Media(pixels.astype(np.uint8), times, "video", "x.mp4", "0" * 64)


@pytest.fixture(scope="module", params=pairs.KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return pairs.save(tmp_path_factory.mktemp("pair") / request.param, request.param)


def kind_of(folder: str) -> str:
    return Path(folder).name


def load(folder: str) -> Pair:
    return load_pair(folder, CPU, torch.float32)


def inputs(kind: str, media: Media, question: str) -> Any:
    """What the library's joint forward takes, by the library's joint processor."""
    joint = {"clip": CLIPProcessor, "siglip": SiglipProcessor, "siglip2": Siglip2Processor}[kind]
    processor = joint(pairs.image_processor(kind), pairs.tokenizer(kind))
    frames = [media.picture(index) for index in range(len(media.frames))]
    full: dict[str, Any] = {}
    if kind != "clip":
        full = {"padding": "max_length", "max_length": pairs.TEXT_TOKENS}
    if kind == "siglip2":  # the joint processor has sizes of its own
        full |= {"patch_size": pairs.PATCH, "max_num_patches": (pairs.SIDE // pairs.PATCH) ** 2}
    return processor(text=[question], images=frames, return_tensors="pt", **full)


def test_scores_are_the_cosines_of_the_joint_model(folder: str) -> None:
    media, kind = clip(), kind_of(folder)
    with torch.no_grad():
        joint = pairs.model(kind)(**inputs(kind, media, QUESTION))
        scores = load(folder).scorer(media, QUESTION)().value
    images, text = joint.image_embeds.numpy(), joint.text_embeds.numpy()[0]
    images, text = images.astype(np.float64), text.astype(np.float64)
    cosines = images @ text / (np.linalg.norm(images, axis=1) * np.linalg.norm(text))
    close(scores, cosines, terms=pairs.WIDEST, depth=pairs.LAYERS, scale=1.0)
    assert scores.argsort().tolist() == joint.logits_per_image[:, 0].argsort().tolist()
    assert np.ptp(cosines) > 0.01  # the frames differ, or the order proves nothing


def test_another_question_gives_other_scores(folder: str) -> None:
    pair, media = load(folder), clip()
    with torch.no_grad():
        one, other = (
            pair.scorer(media, text)().value for text in (QUESTION, "is there a blue square ?")
        )
    assert (one - other).abs().max() > 0.01


def test_frames_in_several_batches_are_those_of_one(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, media = load(folder), clip()
    with torch.no_grad():
        whole = pair.scorer(media, QUESTION)()
        monkeypatch.setattr(relevance, "BATCH_FRAMES", 2)
        parts = pair.scorer(media, QUESTION)()
    close(whole.value, parts.value, terms=pairs.WIDEST, depth=pairs.LAYERS, scale=1.0)
    assert whole.flops == parts.flops


def test_the_operations_are_those_that_torch_counts(folder: str) -> None:
    pair, media = load(folder), clip()
    pair.model.set_attn_implementation("eager")  # the counter does not know the CPU's flash kernel
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        produced = pair.scorer(media, QUESTION)()
    width = 24 if pair.kind == "clip" else 48
    cosines = 6 * len(media.frames) * width  # which are no matrix products
    assert produced.flops - cosines == counter.get_total_flops()


def test_the_source_names_the_pair(folder: str) -> None:
    with torch.no_grad():
        produced = load(folder).scorer(clip(2), QUESTION)()
    assert produced.source == f"the {kind_of(folder)} pair {folder}"


def test_a_long_question_is_cut_and_told(folder: str) -> None:
    pair, media = load(folder), clip(2)
    start = "a red circle what moves " * 8
    texts = [start + "is there a blue square", start + "a green circle", "blue " + start]
    with torch.no_grad():
        one, same, other = (pair.scorer(media, text)().value for text in texts)
    assert torch.equal(one, same)
    assert (one - other).abs().max() > 1e-4
    (warning,) = pair.warnings(texts[0])
    asked = len(pairs.tokenizer(kind_of(folder))(texts[0]).input_ids)
    assert f"the question has {asked} tokens for {folder}" in warning
    assert f"takes {pairs.TEXT_TOKENS}:" in warning
    assert pair.warnings(QUESTION) == ()


def test_a_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    random_llava(0, width=32, vision_layers=1, decoder_layers=1).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="architecture llava") as caught:
        load(str(tmp_path))
    assert caught.value.exit_code == 4
    assert "CLIP or SigLIP" in (caught.value.allowed or "")
    assert caught.value.where == str(tmp_path)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for name, found in (
        (str(tmp_path), "a folder without config.json"),
        (str(tmp_path / "gone"), "no such folder"),
        (str(tmp_path / "file"), "a file"),
    ):
        with pytest.raises(ModelError, match=found) as caught:
            load(name)
        assert caught.value.where == name and caught.value.allowed


def test_missing_parts_are_told(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = pairs.save(tmp_path / "x", "clip")
    weights = tmp_path / "x" / "model.safetensors"
    kept = {k: v for k, v in load_file(weights).items() if not k.startswith("text_projection")}
    save_file(kept, weights, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 missing \(text_projection.weight\)"):
        load(path)
    weights.unlink()
    with pytest.raises(ModelError) as caught:
        load(path)
    assert caught.value.where == path
    path = pairs.save(tmp_path / "y", "siglip")
    (tmp_path / "y" / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError) as caught:
        load(path)
    assert caught.value.where == path and caught.value.allowed


def test_an_id_that_is_not_cached_is_refused_offline() -> None:
    with pytest.raises(ModelError) as caught:
        load("nobody/no-such-pair")
    assert caught.value.exit_code == 4 and "a hub id in reach" in (caught.value.allowed or "")


def produced(*scores: float) -> Any:
    return lambda: Produced(torch.tensor(scores), 7, "a test")


def test_joined_frames_have_the_mean_of_theirs() -> None:
    one = given_relevance([produced(1.0, 2.0, 5.0)], [3], CPU)
    assert one.value.tolist() == [1.0, 2.0, 5.0] and (one.flops, one.source) == (7, "a test")
    assert given_relevance([produced(1.0, 2.0, 5.0, 7.0)], [2], CPU).value.tolist() == [1.5, 6.0]
    assert given_relevance([produced(1.0, 2.0, 5.0)], [2], CPU).value.tolist() == [1.5, 5.0]
    for frames in (4, 7):
        with pytest.raises(SignalError, match=f"relevance of 3 frames for a grid of {frames}"):
            given_relevance([produced(1.0, 2.0, 5.0)], [frames], CPU)


def test_a_prompt_is_left_alone_without_a_pair(folder: str) -> None:
    from vtc_cli.commands.relevance import scored
    from vtc_cli.models.llava_next_video import random_llava_next_video

    adapter = random_llava_next_video(0, width=32, vision_layers=2, decoder_layers=2, image_size=56)
    media = clip(2)
    prompt = adapter.prepare(media, QUESTION)
    assert scored(prompt, None, media) is prompt
    with_pair = scored(prompt, load(folder), media)
    assert len(with_pair.frame_scorers) == 1
    assert replace(with_pair, frame_scorers=()).warnings == prompt.warnings
    assert json.dumps(with_pair.question) == json.dumps(QUESTION)
