"""Tokens from a file take the way of the direct run: the same logits, bit by bit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.engine.support import (
    AttentionPrune,
    KeepAll,
    ShrinkingPrune,
    noise_media,
    plan_of,
    session_of,
    small_adapter,
)
from tests.store.support import compressed_file, plan_for, read_back
from vtc_cli.core.decision import Decision
from vtc_cli.core.media import Media
from vtc_cli.core.plan import Fidelity, Plan
from vtc_cli.core.recorded import Recorded
from vtc_cli.core.signals import Signals
from vtc_cli.core.stage import PrefillStage
from vtc_cli.core.tokens import TokenTable
from vtc_cli.core.trace import Trace
from vtc_cli.engine.decode import Generation
from vtc_cli.engine.reading import Request
from vtc_cli.engine.session import Session
from vtc_cli.media.image import read_image
from vtc_cli.models.support.load import LoadOptions, load_model
from vtc_cli.store.read import TokenFile
from vtc_cli.store.replay import blank_media, replay_plan

SAMPLE = Path(__file__).parents[2] / "samples" / "gradient.png"
QUESTION = "what is the blue shape?"
FORCED = Generation(forced=(7, 21, 5, 40, 11, 3), seed=3)

CASES = [
    ("tiny", "full", None, None),
    *(
        ("tiny", name, budget, None)
        for name in ("mustdrop", "tokencarve", "mustdrop_tokencarve")
        for budget in (192.0, 64.0)
    ),
    ("tiny", "mustdrop", 64.0, "official"),
    ("tiny", "tokencarve", 128.0, "official"),
    ("narrow:llava", "mustdrop_tokencarve", 64.0, None),
]


@dataclass(frozen=True, kw_only=True)
class Nothing(PrefillStage):
    """Drops every token."""

    layers: tuple[int, ...] = (3,)

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        return Decision.prune(torch.zeros(0, dtype=torch.int64), len(tokens))


@pytest.fixture(scope="module")
def sessions() -> dict[str, Session]:
    return {name: Session(*load_model(name, LoadOptions())) for name in ("tiny", "narrow:llava")}


def direct(session: Session, media: Media, plan: Plan) -> tuple[Trace, Tensor]:
    prompt = session.adapter.prepare(media, QUESTION)
    trace, decoded = session._pass(Request(prompt, plan, FORCED))
    return trace, torch.stack(decoded.logits)


def fed(
    session: Session, file: TokenFile, plan: Plan | None = None, tokens: TokenTable | None = None
) -> tuple[Trace, Tensor]:
    """The same pass from the file alone: a blank picture, the decisions, the policies."""
    prompt = session.adapter.prepare(blank_media(file), QUESTION)
    plan = plan or replay_plan(file, torch.device("cpu"))
    tokens = tokens or file.entering_on(torch.device("cpu"))
    trace, decoded = session._pass(Request(prompt, plan, FORCED, tokens=tokens))
    return trace, torch.stack(decoded.logits)


@pytest.mark.parametrize(("model", "recipe", "budget", "fidelity"), CASES)
def test_every_logit_is_that_of_the_direct_run(
    sessions: dict[str, Session],
    tmp_path: Path,
    model: str,
    recipe: str,
    budget: float | None,
    fidelity: Fidelity | None,
) -> None:
    session, media = sessions[model], read_image(str(SAMPLE))
    plan = plan_for(session, recipe, budget, fidelity)
    wanted, wanted_logits = direct(session, media, plan)
    path = compressed_file(session, media, QUESTION, plan, tmp_path / "x.safetensors", seed=3)
    file = read_back(path)
    for name in ("name", "sha256", "fidelity", "positions", "budget", "requested", "warnings"):
        assert getattr(replay_plan(file, torch.device("cpu")), name) == getattr(plan, name), name
    trace, logits = fed(session, file)
    assert trace.first_logits is not None and wanted.first_logits is not None
    assert torch.equal(trace.first_logits, wanted.first_logits)
    assert torch.equal(logits, wanted_logits)
    assert len(logits) == 6
    assert trace.visual_tokens == wanted.visual_tokens
    assert trace.decode_kv_entries == wanted.decode_kv_entries
    assert trace.kv_bytes == wanted.kv_bytes
    assert trace.tower == [] and trace.timings[0].vision_ms is None
    later = [record for record in wanted.records if record.phase != "encoder"]
    assert [(r.stage, r.layer, r.before, r.after) for r in trace.records] == [
        (r.stage, r.layer, r.before, r.after) for r in later
    ]


def test_sampling_draws_the_same_words(sessions: dict[str, Session], tmp_path: Path) -> None:
    session, media = sessions["tiny"], read_image(str(SAMPLE))
    plan = plan_for(session, "mustdrop", 64.0)
    file = read_back(compressed_file(session, media, QUESTION, plan, tmp_path / "x.safetensors"))
    wild = Generation(max_new_tokens=8, temperature=3.0, seed=11)
    prompt = session.adapter.prepare(media, QUESTION)
    blank = session.adapter.prepare(blank_media(file), QUESTION)
    cpu = torch.device("cpu")
    again = session.run(blank, replay_plan(file, cpu), wild, tokens=file.entering_on(cpu))
    assert again.answer_ids == session.run(prompt, plan, wild).answer_ids
    assert len(set(again.answer_ids)) > 1


def test_a_single_other_token_would_be_noticed(
    sessions: dict[str, Session], tmp_path: Path
) -> None:
    session, media = sessions["tiny"], read_image(str(SAMPLE))
    plan = plan_for(session, "mustdrop", 192.0)
    file = read_back(compressed_file(session, media, QUESTION, plan, tmp_path / "x.safetensors"))
    _, wanted = fed(session, file)
    tokens = file.entering_on(torch.device("cpu"))
    tokens.features[int(file.final.anchor[0] == tokens.anchor[0])] += 1e-3
    assert not torch.equal(fed(session, file, tokens=tokens)[1], wanted)
    idle = replace(replay_plan(file, torch.device("cpu")), decode=())
    assert not torch.equal(fed(session, file, plan=idle)[1], wanted)


def test_two_stages_of_one_name_at_one_layer_are_told_apart(tmp_path: Path) -> None:
    session = session_of(small_adapter())
    media = noise_media()
    plan = plan_of(
        ShrinkingPrune(layers=(3, 4)), KeepAll(layers=(3,)), ShrinkingPrune(layers=(1, 3))
    )
    wanted, wanted_logits = direct(session, media, plan)
    path = compressed_file(session, media, QUESTION, plan, tmp_path / "x.safetensors")
    file = read_back(path)
    order = [(part.place, part.layer) for part in file.head.decisions]
    assert order == [(2, 1), (0, 3), (1, 3), (2, 3), (0, 4)]
    replayed = replay_plan(file, torch.device("cpu"))
    assert [planned.stage.layers for planned in replayed.prefill] == [(3, 4), (3,), (1, 3)]
    assert all(isinstance(planned.stage, Recorded) for planned in replayed.prefill)
    trace, logits = fed(session, file)
    assert torch.equal(logits, wanted_logits)
    assert [r.after for r in trace.records] == [r.after for r in wanted.records] == [12, 4, 4, 2, 1]


def test_a_prefill_that_leaves_no_token_goes_on_without_any(tmp_path: Path) -> None:
    session = session_of(small_adapter())
    plan = plan_of(ShrinkingPrune(layers=(1, 2, 4)), AttentionPrune(layers=(2,)), Nothing())
    wanted, wanted_logits = direct(session, noise_media(), plan)
    path = compressed_file(session, noise_media(), QUESTION, plan, tmp_path / "x.safetensors")
    file = read_back(path)
    assert len(file.final) == 0 and len(file.entering) == 36
    trace, logits = fed(session, file)
    assert torch.equal(logits, wanted_logits)
    assert trace.visual_tokens == wanted.visual_tokens == [36, 12, 2, 0, 0, 0]


def test_a_given_table_is_left_as_it_was(sessions: dict[str, Session], tmp_path: Path) -> None:
    session, media = sessions["tiny"], read_image(str(SAMPLE))
    plan = plan_for(session, "tokencarve", 64.0)
    file = read_back(compressed_file(session, media, QUESTION, plan, tmp_path / "x.safetensors"))
    before = file.entering.features.clone()
    first, second = fed(session, file)[1], fed(session, file)[1]
    assert torch.equal(first, second)
    assert torch.equal(file.entering.features, before)
