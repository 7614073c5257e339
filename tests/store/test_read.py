"""A token file that is broken, or that disagrees with itself, is refused with what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

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
from tests.store.support import compressed_file, tampered
from vtc_cli.core.errors import TokenFileError
from vtc_cli.store.read import read_tokens
from vtc_cli.store.replay import blank_media, replay_plan

Change = Callable[[dict[str, Any], dict[str, str]], object]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    plan = plan_of(TowerPrune(), AttentionPrune(), ShrinkingPrune(layers=(4,)))
    path = tmp_path_factory.mktemp("tokens") / "whole.safetensors"
    return compressed_file(session_of(small_adapter()), noise_media(), QUESTION, plan, path)


def test_the_whole_file_is_read(whole: Path) -> None:
    file = read_tokens(whole)
    assert (len(file.entering), len(file.final), len(file.decisions)) == (27, 4, 2)


def set_value(name: str, place: tuple[int, ...], value: float) -> Change:
    def change(tensors: dict[str, Any], metadata: dict[str, str]) -> None:
        tensors[name][place] = value

    return change


def set_tensor(name: str, value: Callable[[Any], Any]) -> Change:
    return lambda tensors, metadata: tensors.update({name: value(tensors[name])})


def set_head(name: str, value: Any, *inside: str) -> Change:
    """Change a field of the head, or one inside of it."""

    def change(tensors: dict[str, Any], metadata: dict[str, str]) -> None:
        if not inside:
            metadata[name] = value if isinstance(value, str) else json.dumps(value)
            return
        held = part = json.loads(metadata[name])
        for key in inside[:-1]:
            part = part[int(key) if isinstance(part, list) else key]
        part[int(inside[-1]) if isinstance(part, list) else inside[-1]] = value
        metadata[name] = json.dumps(held)

    return change


BROKEN: dict[str, tuple[Change, str]] = {
    "version": (set_head("format_version", "3"), "format version 3"),
    "format": (set_head("format", "other"), "without compressed tokens"),
    "no metadata": (lambda t, m: m.clear(), "without compressed tokens"),
    "no model": (lambda t, m: m.pop("model"), "head cannot be understood: model"),
    "bad JSON": (set_head("recipe", "{"), "head cannot be understood"),
    "wrong kind": (set_head("grids", "many", "0", "rows"), "grids.0.rows"),
    "zero grid": (set_head("grids", 0, "0", "rows"), "grids.0.rows"),
    "dtype of the head": (set_head("model", "float64", "dtype"), "model.dtype"),
    "missing features": (lambda t, m: t.pop("features"), "features is missing"),
    "missing entering": (lambda t, m: t.pop("entering.size"), "entering.size is missing"),
    "missing decision": (lambda t, m: t.pop("decision.1.keep"), "decision.1.keep is missing"),
    "missing mix": (lambda t, m: t.pop("decision.0.mix.values"), "mix.values is missing"),
    "NaN features": (set_value("features", (0, 0), float("nan")), "features with NaN"),
    "infinite features": (
        set_value("entering.features", (3, 1), float("inf")),
        "entering.features with NaN",
    ),
    "NaN weights": (set_value("origin.values", (0,), float("nan")), "origin.values with NaN"),
    "weights": (set_value("origin.values", (0,), 0.5), "do not sum to 1"),
    "mix": (set_value("decision.0.mix.values", (2,), 2.0), "do not sum to 1"),
    "anchor above": (set_value("anchor", (0,), 36), "anchor reaches from"),
    "anchor below": (set_value("entering.anchor", (0,), -1), "entering.anchor reaches from"),
    "anchor twice": (set_tensor("anchor", lambda a: a[[0, 0, 2, 3]]), "token twice"),
    "origin": (set_value("origin.indices", (1, 0), 99), "origin.indices reaches from"),
    "origin rows": (set_value("origin.indices", (0, 3), 4), "origin.indices reaches from"),
    "keep": (set_value("decision.0.keep", (0,), 27), "decision.0.keep reaches from"),
    "keep twice": (set_tensor("decision.0.keep", lambda k: k * 0), "names a row twice"),
    "other keep": (set_tensor("decision.1.keep", lambda k: k - 1), "lead to other tokens"),
    "shape": (set_tensor("position", lambda p: p[:, :2]), "allowed: torch.float32 4 x 3"),
    "length": (set_tensor("size", lambda s: s[:3]), "size is torch.float32 3"),
    "flat features": (set_tensor("features", torch.flatten), "features is torch.float32"),
    "half features": (set_tensor("features", lambda f: f.half()), "features is torch.float16"),
    "whole features": (set_tensor("features", lambda f: f.long()), "features is torch.int64"),
    "real anchors": (set_tensor("anchor", lambda a: a.float()), "anchor is torch.float32"),
    "place of a decision": (set_head("decisions", 9, "0", "place"), "belong to its stages"),
    "phase of a decision": (set_head("decisions", 0, "0", "place"), "belong to its stages"),
    "stage of a decision": (set_head("decisions", "other", "0", "stage"), "belong to its stages"),
    "order of decisions": (set_head("decisions", 5, "0", "layer"), "belong to its stages"),
    "grid too small": (set_head("grids", 5, "0", "rows"), "reaches from"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_refused(whole: Path, tmp_path: Path, case: str) -> None:
    change, words = BROKEN[case]
    path = tampered(whole, tmp_path / "x.safetensors", change)
    with pytest.raises(TokenFileError) as caught:
        read_tokens(path)
    assert words in str(caught.value)
    assert caught.value.where == str(path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.05, 0.5, 0.999])
def test_a_file_cut_short_is_refused(whole: Path, tmp_path: Path, share: float) -> None:
    data = whole.read_bytes()
    path = tmp_path / "x.safetensors"
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(TokenFileError, match="no whole safetensors file"):
        read_tokens(path)


OTHER = {
    "text": b"hello, this is a text of some length",
    "picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "a list as header": (2).to_bytes(8, "little") + b"[]",
    "deep nesting": (200_000).to_bytes(8, "little") + b"[" * 200_000,
}


@pytest.mark.parametrize("case", OTHER)
def test_what_is_no_safetensors_file_is_refused(tmp_path: Path, case: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(OTHER[case])
    with pytest.raises(TokenFileError, match="no whole safetensors file"):
        read_tokens(path)


def test_tensors_of_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"w": torch.zeros(3)}, path)
    with pytest.raises(TokenFileError, match="without compressed tokens"):
        read_tokens(path)


def test_a_folder_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenFileError, match="a folder"):
        read_tokens(tmp_path)
    with pytest.raises(TokenFileError, match="no such file"):
        read_tokens(tmp_path / "nothing.safetensors")


def test_a_picture_of_impossible_size_is_refused(whole: Path, tmp_path: Path) -> None:
    change = set_head("input", 10**7, "width")
    path = tampered(whole, tmp_path / "x.safetensors", change)
    with pytest.raises(TokenFileError, match="at most 180 million"):
        blank_media(read_tokens(path))


def test_a_stage_that_is_not_known_here_names_itself(whole: Path) -> None:
    """The tower's toy stage lies in no module, so that it cannot be built again."""
    with pytest.raises(TokenFileError, match="its stage tower_prune cannot be used"):
        replay_plan(read_tokens(whole), torch.device("cpu"))
