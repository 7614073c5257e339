"""Columns of a token file against an independent computation; files are whole or not there."""

from __future__ import annotations

import json
import resource
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.engine.support import (
    QUESTION,
    AttentionPrune,
    noise_media,
    plan_of,
    session_of,
    small_adapter,
)
from tests.store.support import compressed_file, content, read_back
from tests.tolerance import close
from vtc_cli.core.decision import Decision
from vtc_cli.core.errors import VtcError
from vtc_cli.core.files import write_all
from vtc_cli.core.observe import Observer
from vtc_cli.core.signals import Signals
from vtc_cli.core.stage import EncoderStage, PrefillStage
from vtc_cli.core.tokens import TokenTable
from vtc_cli.engine.decode import Generation
from vtc_cli.engine.session import Session


@dataclass(frozen=True, kw_only=True)
class MergePairs(EncoderStage):
    """Behind the projector: weighted means of neighbours, every sixth token gone, odd order."""

    protects: bool = False

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        first = torch.arange(0, len(tokens), 2)
        first = first[first % 6 != 4].flip(0)
        row = torch.arange(first.shape[0])
        pairs = torch.cat([torch.stack([row, first]), torch.stack([row, first + 1])], dim=1)
        weights = torch.cat([torch.full_like(row, 3.0), torch.ones_like(row)]).float()
        protect = row % 5 == 0 if self.protects else None
        return Decision.merge(first, pairs, weights, len(tokens), protect=protect)


@dataclass(frozen=True, kw_only=True)
class MarkHalves(PrefillStage):
    """Two events, the second of them key."""

    layers: tuple[int, ...] = (1,)

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        half = (torch.arange(len(tokens)) >= len(tokens) // 2).long()
        keep = torch.arange(len(tokens))
        return Decision.prune(keep, len(tokens), segment=half, key=half > 0)


@dataclass(frozen=True, kw_only=True)
class MarkFirst(PrefillStage):
    """Protects the first token."""

    layers: tuple[int, ...] = (1,)

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        protect = torch.arange(len(tokens)) == 0
        return Decision.identity(len(tokens), tokens.features.device, protect=protect)


@pytest.fixture(scope="module")
def session() -> Session:
    return session_of(small_adapter())


def plain_features(session: Session) -> np.ndarray:
    """(36, d) features of the untouched model by the library's own method."""
    prompt = session.adapter.prepare(noise_media(), QUESTION)
    pixels = prompt.encoder_inputs["pixel_values"]
    with torch.inference_mode():
        output = session.adapter.model.model.get_image_features(pixels, return_dict=True)
    features: np.ndarray = output.pooler_output[0].numpy()
    return features


def test_merged_columns_are_the_weights_times_the_plain_columns(
    session: Session, tmp_path: Path
) -> None:
    plan = plan_of(MergePairs(protects=True))
    path = compressed_file(session, noise_media(), QUESTION, plan, tmp_path / "x.safetensors")
    tensors, _ = content(path)
    assert not [name for name in tensors if name.startswith(("entering", "decision"))]
    anchors = [first for first in range(34, -1, -2) if first % 6 != 4]
    weights = np.zeros((12, 36))
    for row, first in enumerate(anchors):
        weights[row, first], weights[row, first + 1] = 0.75, 0.25
    origin = np.zeros((12, 36))
    indices = tensors["origin.indices"].numpy()
    np.add.at(origin, (indices[0], indices[1]), tensors["origin.values"].numpy())
    close(torch.from_numpy(origin).float(), weights)
    expected = weights @ plain_features(session)
    close(tensors["features"], expected, model=session.adapter)
    grid = np.array([[0, index // 6, index % 6] for index in range(36)])
    close(tensors["position"], weights @ grid, terms=2)
    assert tensors["anchor"].tolist() == anchors
    assert tensors["size"].tolist() == [2.0] * 12
    assert tensors["protected"].tolist() == [row % 5 == 0 for row in range(12)]
    for name, value in (("span", 0), ("frame", 0), ("segment", -1), ("key", False)):
        assert tensors[name].tolist() == [value] * 12


def test_events_marked_in_the_prefill_come_back(session: Session, tmp_path: Path) -> None:
    plan = plan_of(MergePairs(), MarkHalves())
    path = compressed_file(session, noise_media(), QUESTION, plan, tmp_path / "x.safetensors")
    file = read_back(path)
    assert file.entering.segment.tolist() == [-1] * 12
    assert file.final.segment.tolist() == [0] * 6 + [1] * 6
    assert file.final.key.tolist() == [False] * 6 + [True] * 6
    (decision,) = file.decisions_on(torch.device("cpu"))
    again = file.entering_on(torch.device("cpu")).apply(decision)
    assert torch.equal(again.segment, file.final.segment)
    assert torch.equal(again.key, file.final.key)


def test_a_prefill_leaves_both_tables_and_its_decisions(session: Session, tmp_path: Path) -> None:
    plan = plan_of(MergePairs(), AttentionPrune())
    path = compressed_file(session, noise_media(), QUESTION, plan, tmp_path / "x.safetensors")
    tensors, _ = content(path)
    entering, keep = tensors["entering.anchor"], tensors["decision.0.keep"]
    assert len(entering) == 12 and len(keep) == 6
    assert tensors["anchor"].tolist() == entering[keep].tolist()
    assert tensors["decision.0.mix.indices"].tolist() == [list(range(6)), keep.tolist()]
    assert tensors["decision.0.mix.values"].tolist() == [1.0] * 6
    assert "decision.0.protect" not in tensors
    assert "decision.1.keep" not in tensors
    prompt = session.adapter.prepare(noise_media(), QUESTION)
    watching = Observer(lambda view: view, "hidden")
    run = session.run(prompt, plan, Generation(max_new_tokens=1), observer=watching)
    hidden = run.observed[1]  # the output of layer 1 is the input of layer 2
    rows = torch.stack([hidden.hidden[hidden.anchor.tolist().index(a)] for a in entering[keep]])
    assert torch.equal(tensors["features"], rows)


def test_marks_of_the_prefill_travel(session: Session, tmp_path: Path) -> None:
    plan = plan_of(MergePairs(), MarkFirst())
    path = compressed_file(session, noise_media(), QUESTION, plan, tmp_path / "x.safetensors")
    tensors, _ = content(path)
    assert tensors["decision.0.protect"].tolist() == [True] + [False] * 11
    assert tensors["protected"].tolist() == [True] + [False] * 11
    assert not tensors["entering.protected"].any()
    (decision,) = read_back(path).decisions
    assert decision.protect is not None and int(decision.protect.sum()) == 1


def test_the_head_says_where_the_tokens_come_from(session: Session, tmp_path: Path) -> None:
    plan = plan_of(MergePairs(), AttentionPrune())
    path = compressed_file(
        session, noise_media(), QUESTION, plan, tmp_path / "x.safetensors", seed=5
    )
    _, metadata = content(path)
    assert (metadata["format"], metadata["format_version"]) == ("vtc-tokens", "2")
    said = {name: json.loads(metadata[name]) for name in ("model", "stages", "grids", "input")}
    assert said["model"]["dtype"] == "float32" and said["model"]["family"] == "llava"
    assert [stage["stage"] for stage in said["stages"]] == ["merge_pairs", "attention_prune"]
    (grid,) = said["grids"]
    assert (grid["frames"], grid["rows"], grid["columns"], grid["view"]) == (1, 6, 6, "whole")
    assert (said["input"]["width"], said["input"]["height"]) == (90, 70)
    assert json.loads(metadata["question"]) == QUESTION
    assert json.loads(metadata["text_readers"]) == ["attention_prune"]
    assert json.loads(metadata["decisions"]) == [
        {"stage": "attention_prune", "place": 1, "layer": 2, "note": ""}
    ]
    assert json.loads(metadata["seed"]) == 5


def test_what_is_read_is_what_was_written(session: Session, tmp_path: Path) -> None:
    prompt = session.adapter.prepare(noise_media(), QUESTION)
    plan = plan_of(MergePairs(), AttentionPrune())
    done = session.compress(prompt, plan)
    path = compressed_file(session, noise_media(), QUESTION, plan, tmp_path / "x.safetensors")
    file = read_back(path)
    for read, kept in ((file.entering, done.entering), (file.final, done.final)):
        assert read.layout == kept.layout
        for name, column in vars(kept).items():
            if name not in ("layout", "origin", "added"):
                assert torch.equal(getattr(read, name), column), name
        assert torch.equal(read.origin.to_dense(), kept.origin.to_dense())


def test_readers_never_see_half_a_file(tmp_path: Path) -> None:
    """Another thread looks while two contents take turns."""
    first, last = tmp_path / "a.json", tmp_path / "a.safetensors"
    contents = [bytes([letter]) * 3_000_000 for letter in b"xy"]
    stop = threading.Event()
    seen: list[set[bytes]] = []

    def look() -> None:
        while not stop.is_set():
            for path in (first, last):
                try:
                    data = path.read_bytes()
                except FileNotFoundError:
                    continue
                seen.append({data[:1], data[-1:], str(len(data)).encode()})

    watcher = threading.Thread(target=look)
    watcher.start()
    turn = 0
    while turn < 30 or (len(seen) <= 30 and turn < 3000):  # the watcher may get little time
        write_all({first: contents[turn % 2], last: contents[turn % 2]})
        turn += 1
    stop.set()
    watcher.join()
    assert len(seen) > 30
    assert all(looked in ({b"x", b"3000000"}, {b"y", b"3000000"}) for looked in seen)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.safetensors"]


def test_without_room_nothing_changes(tmp_path: Path) -> None:
    """The limit on the size of files stands for a full disk."""
    small, large = tmp_path / "a.json", tmp_path / "a.safetensors"
    write_all({small: b"old", large: b"old"})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(VtcError, match="could not be written"):
            write_all({small: b"new", large: b"new" * 1000})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert small.read_bytes() == large.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_name_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    """It is met before the first renaming."""
    first, blocked, last = (tmp_path / name for name in ("a.png", "a.json", "a.safetensors"))
    write_all({first: b"old", last: b"old"})
    blocked.mkdir()
    with pytest.raises(VtcError):
        write_all({first: b"new", blocked: b"new", last: b"new"})
    assert first.read_bytes() == last.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 3
