"""True sizes: known parameter counts, made once on their device and in their dtype."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.engine.families import family_media
from tests.engine.support import session_of
from vtc_cli.app import run_command_line
from vtc_cli.core.errors import ModelError
from vtc_cli.engine.decode import Generation
from vtc_cli.models.support.base import Adapter
from vtc_cli.models.support.load import family_class
from vtc_cli.models.support.true_size import TrueSize, builder, read_true_size, true_sizes
from vtc_cli.recipe.load import load_recipe
from vtc_cli.recipe.resolve import resolve

# As the checkpoints on the hub have them.
PARAMETERS = {
    "llava-1.5-7b": 7_063_427_072,
    "llava-1.5-13b": 13.35e9,
    "internvl3-8b": 7.94e9,
    "smolvlm2-2.2b": 2_246_784_880,
    "llava-next-7b": 7_063_431_168,
    "llava-onevision-0.5b": 893.6e6,
    "llava-onevision-7b": 8.03e9,
    "longva-7b": 7.935e9,
    "qwen2.5-vl-3b": 3.755e9,
    "qwen2.5-vl-7b": 8.292e9,
    "qwen3-vl-8b": 8.767e9,
}
# Pictures that the tower sees of one of 3 : 1, crops and the whole; frames of a video.
TILES = {
    "llava-1.5-7b": 1,
    "internvl3-8b": 4,
    "smolvlm2-2.2b": 9,
    "llava-next-7b": 3,
    "llava-onevision-0.5b": 2,
    "longva-7b": 4,
    "qwen2.5-vl-3b": 1,
    "qwen3-vl-8b": 1,
}


def made(size: TrueSize, device: str, dtype: torch.dtype) -> Adapter:
    build = builder(torch.device(device), dtype, 0)
    return family_class(size.family).true_size(size.config, build)


@pytest.mark.parametrize("name", true_sizes())
def test_a_shape_has_the_parameters_of_its_model(name: str) -> None:
    adapter = made(read_true_size(name), "meta", torch.bfloat16)
    count = sum(parameter.numel() for parameter in adapter.model.parameters())
    assert count == pytest.approx(PARAMETERS[name], rel=1e-3)
    kinds = {(parameter.device.type, parameter.dtype) for parameter in adapter.model.parameters()}
    assert kinds == {("meta", torch.bfloat16)}  # nothing was made elsewhere or wider first
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize("name", ["llava-1.5-7b", "smolvlm2-2.2b"])
def test_a_shape_counts_exactly(name: str) -> None:
    adapter = made(read_true_size(name), "meta", torch.bfloat16)
    assert sum(p.numel() for p in adapter.model.parameters()) == PARAMETERS[name]


def small(name: str) -> TrueSize:
    """The shipped configuration with its widths and depths shrunk, all else as it is."""
    size = read_true_size(name)
    config = json.loads(json.dumps(size.config))
    config["vision_config"] |= {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
    }
    config["text_config"] |= {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
    }
    if "depth" in config["vision_config"]:  # the names of the Qwen families
        config["vision_config"] |= {"depth": 4, "num_heads": 4, "out_hidden_size": 64}
        config["vision_config"] |= {"fullatt_block_indexes": [3]}
        config["vision_config"] |= {"deepstack_visual_indexes": [0, 1, 2]}
        config["text_config"]["rope_parameters"] |= {"mrope_section": [2, 3, 3]}
    return TrueSize(size.family, size.source, config)


@pytest.mark.parametrize("name", sorted(TILES))
def test_a_shape_answers_under_a_recipe(name: str) -> None:
    adapter = made(small(name), "cpu", torch.float32)
    prompt = adapter.prepare(family_media(adapter.family, 0, 30, 90), "what is it?")
    budget = round(0.5 * prompt.layout.tokens)
    plan = resolve(
        load_recipe("tokencarve"),
        adapter.shape,
        family_signals=adapter.provides,
        original_tokens=prompt.layout.tokens,
        budget=float(budget),
    )
    trace = session_of(adapter).run(prompt, plan, Generation(max_new_tokens=2))  # type: ignore[arg-type]
    assert abs(sum(trace.visual_tokens) / 4 - budget) <= 0.5
    assert sum(seen.input.count for seen in trace.tower) == TILES[name]
    assert trace.first_logits is not None and bool(trace.first_logits.isfinite().all())


def test_the_same_seed_gives_the_same_weights() -> None:
    first, second = (made(small("llava-1.5-7b"), "cpu", torch.float32) for _ in range(2))
    pairs = zip(first.model.parameters(), second.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_an_unknown_shape_and_a_family_without_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ModelError, match="no shape"):
        read_true_size("llava", tmp_path)
    with pytest.raises(ModelError, match="ships no true sizes"):
        family_class("gemma3").true_size({}, builder(torch.device("cpu"), torch.float32, 0))
    picture = str(Path(__file__).parents[2] / "samples" / "plain.png")
    assert run_command_line(["run", picture, "what?", "-m", "shape:llava-1.5-7"]) == 4
    assert "shape:llava-1.5-7b" in capsys.readouterr().err
