"""Stopping behind a stage: the decisions until then are those of the whole plan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tests.engine.support import (
    QUESTION,
    AttentionPrune,
    KeepAll,
    ProjectedPrune,
    TowerPrune,
    noise_media,
    plan_of,
    session_of,
    small_adapter,
)
from tests.store.support import plan_for
from vtc_cli.core.cut import cut_after
from vtc_cli.core.decision import Decision
from vtc_cli.core.plan import Plan
from vtc_cli.core.signals import Signals
from vtc_cli.core.stage import PrefillStage
from vtc_cli.core.tokens import TokenTable
from vtc_cli.core.trace import Trace
from vtc_cli.engine.session import Compressed, Session
from vtc_cli.media.image import read_image
from vtc_cli.models.support.load import LoadOptions, load_model

SAMPLE = Path(__file__).parents[2] / "samples" / "plain.png"


@dataclass(frozen=True, kw_only=True)
class CountLayers(PrefillStage):
    """Drops a token for each layer but two, so that a shortened list of layers would show."""

    layers: tuple[int, ...] = (2, 3, 5)

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        return Decision.prune(torch.arange(len(self.layers) - 2, len(tokens)), len(tokens))


@pytest.fixture(scope="module")
def session() -> Session:
    return session_of(small_adapter())


def compressed(session: Session, plan: Plan, name: str | None) -> Compressed:
    prompt = session.adapter.prepare(noise_media(), QUESTION)
    stop = None
    if name is not None:
        plan, _, stop = cut_after(plan, name)
    return session.compress(prompt, plan, 0, stop)


def said(trace: Trace) -> list[tuple[str, int, list[int]]]:
    return [(record.stage, record.layer, record.anchor.tolist()) for record in trace.records]


PLAN = plan_of(
    TowerPrune(vision_layer=2),
    ProjectedPrune(),
    CountLayers(),
    KeepAll(layers=(1, 3)),
    AttentionPrune(layers=(2, 3)),
)
ENDS = {
    "tower_prune": 1,
    "projected_prune": 2,
    "keep_all": 7,  # one at 1, two at 2 and, in the order of the plan, two of three at 3
    "attention_prune": 8,
    "count_layers": 9,
}


@pytest.mark.parametrize("name", ENDS)
def test_the_decisions_until_then_are_those_of_the_whole(session: Session, name: str) -> None:
    whole = compressed(session, PLAN, None)
    assert [record.after for record in whole.trace.records] == [27, 18, 18, 17, 8, 7, 7, 3, 2]
    done = compressed(session, PLAN, name)
    assert said(done.trace) == said(whole.trace)[: ENDS[name]]
    assert done.trace.records[-1].stage == name
    assert done.final.anchor.tolist() == done.trace.records[-1].anchor.tolist()


def test_no_layer_behind_the_stop_runs(session: Session) -> None:
    ran: list[int] = []
    handles = [
        block.register_forward_hook(lambda *_, layer=layer: ran.append(layer))
        for layer, block in enumerate(session.adapter.decoder_layers)
    ]
    compressed(session, PLAN, "keep_all")
    first = list(ran)
    ran.clear()
    compressed(session, PLAN, "projected_prune")
    for handle in handles:
        handle.remove()
    assert first == [0, 1, 2]
    assert ran == []


def test_the_counts_of_a_budget_do_not_change() -> None:
    session = Session(*load_model("tiny", LoadOptions()))
    prompt = session.adapter.prepare(read_image(str(SAMPLE)), QUESTION)
    plan = plan_for(session, "mustdrop_tokencarve", 100.0)
    whole = session.compress(prompt, plan)
    short, full, stop = cut_after(plan, "carve")
    done = session.compress(prompt, short, 0, stop)
    assert full == "tokencarve.carve"
    assert said(done.trace) == said(whole.trace)
    merged, _, _ = cut_after(plan, "spatial_merge")
    assert said(session.compress(prompt, merged).trace) == said(whole.trace)[:1]
