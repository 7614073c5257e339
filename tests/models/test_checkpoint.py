"""Checkpoints of strangers: none of their code runs, and their weights are whole and finite."""

from __future__ import annotations

import ast
import errno
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import vtc_cli
from tests.engine.families import SMALL, family_media, family_session, small_family
from tests.engine.qwen_support import SMALL as QWEN
from tests.engine.support import noise_media, plan_of, small_adapter
from tests.models import pairs
from tests.models.tiles import save
from vtc_cli.core.errors import MemoryExhaustedError, ModelError
from vtc_cli.engine.decode import Generation
from vtc_cli.models.support.base import Adapter
from vtc_cli.models.support.checkpoint import checkpoint_errors
from vtc_cli.models.support.load import LoadOptions, load_model
from vtc_cli.models.support.relevance import load_pair

CPU = torch.device("cpu")
FAMILIES = ("llava", *SMALL, *QWEN)
AUTO = dict.fromkeys(
    (
        "AutoConfig",
        "AutoModel",
        "AutoModelForCausalLM",
        "AutoModelForImageTextToText",
        "AutoProcessor",
        "AutoImageProcessor",
        "AutoVideoProcessor",
        "AutoFeatureExtractor",
    ),
    "planted.Planted",
) | {"AutoTokenizer": ["planted.Planted", "planted.Planted"]}
KERNELS = ("attn_implementation", "_attn_implementation_internal", "experts_implementation")
INNER = ("text_config", "vision_config", "image_processor", "video_processor")
FILES = (
    "config.json",
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "tokenizer_config.json",
)


def built(family: str) -> Adapter:
    if family == "llava":
        return small_adapter()
    if family in SMALL:
        return small_family(family)
    kind, vision = QWEN[family]
    return kind.random(3, width=64, layers=6, vision=vision, tokens=(4, 16))


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Path]:
    """Plants code in every place of a folder; the mark that it leaves if it runs."""
    mark = tmp_path / "it-ran"
    code = f"open({str(mark)!r}, 'w').close()\nclass Planted: pass\n"
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 1000))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))

    def plant(folder: Path) -> Path:
        for name in ("planted.py", "generate.py", "custom_generate/generate.py"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(code + "def generate(*a, **k): pass\n")
        for name in FILES:
            path = folder / name
            found = json.loads(path.read_text()) if path.exists() else {}
            inner = [each for key, each in found.items() if key in INNER]
            for part in (found, *inner):
                part["auto_map"] = AUTO
                part |= dict.fromkeys(KERNELS, "kernels-community/planted")
            if path.exists() or "preprocessor" not in name:
                path.write_text(json.dumps(found | {"custom_generate": str(folder)}))
        return mark

    return plant


@pytest.mark.parametrize("family", FAMILIES)
def test_planted_code_never_runs_and_the_model_answers(
    family: str, tmp_path: Path, planted: Callable[[Path], Path]
) -> None:
    folder = save(built(family), tmp_path / "checkpoint")
    mark = planted(folder)
    adapter, _ = load_model(str(folder), LoadOptions())
    prompt = adapter.prepare(family_media(family), "?")
    family_session(adapter).run(prompt, plan_of(), Generation(max_new_tokens=1))
    assert not mark.exists()


@pytest.mark.parametrize("kind", pairs.KINDS)
def test_planted_code_of_a_relevance_pair_never_runs(
    kind: str, tmp_path: Path, planted: Callable[[Path], Path]
) -> None:
    folder = pairs.save(tmp_path / "pair", kind)
    mark = planted(Path(folder))
    pair = load_pair(folder, CPU, torch.float32)
    pair.scorer(noise_media(), "what moves ?")()
    assert not mark.exists()


ONLY_PLANTED: dict[str, tuple[str, tuple[str, ...], str]] = {
    "tokenizer": ("tokenizer_config.json", ("tokenizer_class",), "PlantedTokenizer"),
    "image processor": ("processor_config.json", ("image_processor_type",), "PlantedProcessor"),
    "model": ("config.json", ("model_type",), "planted"),
    "text model": ("config.json", ("text_config", "model_type"), "clip_text_model"),
    "unknown text model": ("config.json", ("text_config", "model_type"), "planted"),
    "tower": ("config.json", ("vision_config", "model_type"), "planted"),
}


@pytest.mark.parametrize("part", ONLY_PLANTED)
def test_what_only_planted_code_could_load_is_refused_or_done_without(
    part: str, tmp_path: Path, planted: Callable[[Path], Path]
) -> None:
    """The library asks on the terminal here unless it was told not to."""
    file, place, value = ONLY_PLANTED[part]
    folder = save(small_adapter(), tmp_path / "checkpoint")
    (folder / "preprocessor_config.json").rename(folder / "processor_config.json")
    found = json.loads((folder / file).read_text())
    inner = found
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    if file == "processor_config.json":
        found = {"image_processor": found}
    (folder / file).write_text(json.dumps(found))
    mark = planted(folder)
    try:
        load_model(str(folder), LoadOptions())
    except ModelError as error:
        assert error.exit_code == 4
    assert not mark.exists()


def test_a_chat_template_runs_in_a_sandbox(tmp_path: Path) -> None:
    adapter = small_adapter()
    save(adapter, tmp_path)
    mark = tmp_path / "it-ran"
    reach = "cycler.__init__.__globals__.os.system" + f"('touch {mark}')"
    (tmp_path / "chat_template.jinja").write_text("<image>{{ " + reach + " }}")
    loaded, _ = load_model(str(tmp_path), LoadOptions())
    with pytest.raises(ModelError, match="chat_template"):
        loaded.prepare(noise_media(), "?")
    assert not mark.exists()


def test_only_one_place_loads_with_the_library_and_it_trusts_nobody() -> None:
    package = Path(vtc_cli.__file__).parent
    calls = []
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr == "from_pretrained":
                calls.append(path.relative_to(package).as_posix())
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                assert isinstance(node.value, ast.Constant) and node.value.value is False, path
    assert calls == ["models/support/checkpoint.py"]


def changed(folder: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    path.unlink()
    save_file(weights, path, metadata={"format": "pt"})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(small_adapter(), tmp_path_factory.mktemp("whole") / "x")


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def head(weights: dict[str, Tensor]) -> str:
    """The name of the output head in the file, of an older layout than the model's."""
    return next(key for key in weights if key.endswith("lm_head.weight"))


def without(weights: dict[str, Tensor]) -> None:
    del weights[next(key for key in weights if key.endswith("multi_modal_projector.linear_2.bias"))]


def with_more(weights: dict[str, Tensor]) -> None:
    weights["model.more.weight"] = torch.ones(3)


def reshaped(weights: dict[str, Tensor]) -> None:
    name = head(weights)
    weights[name] = torch.ones(weights[name].shape[0] + 1, weights[name].shape[1])


def with_nan(weights: dict[str, Tensor]) -> None:
    weights[head(weights)].view(-1)[7] = float("nan")


def with_infinity(weights: dict[str, Tensor]) -> None:
    weights[head(weights)].view(-1)[-1] = float("-inf")


def layerless(weights: dict[str, Tensor]) -> None:
    for key in [key for key in weights if ".layers.5." in key]:
        del weights[key]


FAULTS = {
    "missing": (without, r"1 missing \(model.multi_modal_projector.linear_2.bias\)"),
    "unexpected": (with_more, r"1 that no part of the model takes \(model.more.weight\)"),
    "mismatched": (reshaped, r"1 of another shape than config.json says \(lm_head.weight\)"),
    "several": (layerless, r"9 missing \(model.*, model.*, model.* and 6 more\)"),
    "NaN": (with_nan, "NaN or infinite: lm_head.weight"),
    "infinite": (with_infinity, "NaN or infinite: lm_head.weight"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_weights_that_are_not_whole_are_refused_by_name(copy: Path, name: str) -> None:
    change, words = FAULTS[name]
    changed(copy, change)
    with pytest.raises(ModelError, match=words) as caught:
        load_model(str(copy), LoadOptions())
    assert (caught.value.exit_code, caught.value.where) == (4, str(copy))


@pytest.mark.parametrize("family", FAMILIES[1:])
def test_a_missing_weight_is_told_by_every_family(family: str, tmp_path: Path) -> None:
    folder = save(built(family), tmp_path)
    removed = []

    def remove(weights: dict[str, Tensor]) -> None:
        removed.append(next(key for key in sorted(weights) if "layers.3." in key))
        del weights[removed[0]]

    changed(folder, remove)
    with pytest.raises(ModelError, match=r"1 missing \(.*layers\.3\."):
        load_model(str(folder), LoadOptions())


def test_buffers_that_the_library_makes_itself_may_be_stored(copy: Path) -> None:
    def add(weights: dict[str, Tensor]) -> None:
        weights["model.vision_tower.embeddings.position_ids"] = torch.arange(37)[None]

    changed(copy, add)
    load_model(str(copy), LoadOptions())


def test_tied_weights_are_not_missing(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = True
    (copy / "config.json").write_text(json.dumps(config))

    def untie(weights: dict[str, Tensor]) -> None:
        del weights[head(weights)]

    changed(copy, untie)
    adapter, _ = load_model(str(copy), LoadOptions())
    assert torch.equal(adapter.model.lm_head.weight, adapter.decoder.embed_tokens.weight)


def test_weights_too_large_for_a_narrow_dtype_are_refused(copy: Path) -> None:
    def enlarge(weights: dict[str, Tensor]) -> None:
        weights[head(weights)][0, 0] = 1e6

    changed(copy, enlarge)
    load_model(str(copy), LoadOptions())
    with pytest.raises(ModelError, match="NaN or infinite"):
        load_model(str(copy), LoadOptions(dtype="float16"))


def test_a_model_far_larger_than_its_weights_is_refused_before_it_is_made(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    config["text_config"]["vocab_size"] = 10**12
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"describes 128,\d{3},\d{3},\d{3},\d{3} weights"):
        load_model(str(copy), LoadOptions())


def raise_(error: BaseException) -> None:
    raise error


OUT_OF_MEMORY: dict[str, Callable[[], Any]] = {
    "the CPU allocator": lambda: torch.empty(2**60, dtype=torch.uint8),
    "Python": lambda: raise_(MemoryError()),
    "a GPU": lambda: raise_(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")),
    "the system": lambda: raise_(OSError(errno.ENOMEM, "Cannot allocate memory")),
}


@pytest.mark.parametrize("name", OUT_OF_MEMORY)
def test_memory_that_runs_out_while_loading_is_told_as_such(name: str) -> None:
    with pytest.raises(MemoryExhaustedError) as caught, checkpoint_errors("x"):
        OUT_OF_MEMORY[name]()
    assert caught.value.exit_code == 5


def test_an_error_of_this_projects_own_code_is_not_taken_for_the_checkpoints() -> None:
    from vtc_cli.core.layout import Layout

    with pytest.raises(AttributeError), checkpoint_errors("x"):
        _ = Layout((None,)).tokens  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="JSONDecodeError"), checkpoint_errors("x"):
        json.loads("{")
