"""Degenerate inputs over every stage that lies in `stages/`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.stages.entries import entries, view
from tests.stages.support import signals, table
from vtc_cli.core.decision import Decision
from vtc_cli.core.discover import all_stages
from vtc_cli.core.errors import BudgetError, VtcError
from vtc_cli.core.stage import DecodeStage, EncoderStage, PrefillStage
from vtc_cli.core.tokens import TokenTable

STAGES = all_stages()
TABLE_STAGES = [name for name, cls in STAGES.items() if not issubclass(cls, DecodeStage)]
BLIND = {"baselines.random", "baselines.uniform"}  # they read places only
CACHE_STAGES = [name for name, cls in STAGES.items() if issubclass(cls, DecodeStage)]

FEATURES = {
    "one token": (torch.ones(1, 4), 1, 1),
    "two tokens": (torch.tensor([[1.0, 0.0], [0.0, 1.0]]), 1, 2),
    "zero rows": (torch.zeros(36, 4), 6, 6),
    "all equal": (torch.ones(36, 4), 6, 6),
    "one row": (torch.randn(9, 4, generator=torch.Generator().manual_seed(0)), 1, 9),
    "huge values": (torch.full((36, 4), 1e18), 6, 6),
}


def view_of(tokens: TokenTable, fill: float = 0.1) -> Any:
    count = len(tokens)
    return signals(
        tokens.layout,
        attention=torch.full((3, count), fill),
        cls=torch.full((count,), fill),
        relevance=torch.full((tokens.layout.frames,), fill),
        output=tokens.features,
        layer=3,
        entering=count,
    )


def decide(name: str, features: Tensor, rows: int, columns: int) -> tuple[TokenTable, Decision]:
    stage: Any = STAGES[name]()
    assert isinstance(stage, EncoderStage | PrefillStage)
    tokens = table(features, rows, columns)
    return tokens, stage.decide(tokens, view_of(tokens))


@pytest.mark.parametrize("case", FEATURES)
@pytest.mark.parametrize("name", TABLE_STAGES)
def test_a_decision_conserves_and_repeats(name: str, case: str) -> None:
    tokens, decision = decide(name, *FEATURES[case])
    _, again = decide(name, *FEATURES[case])
    assert torch.equal(decision.keep, again.keep)
    assert torch.equal(decision.mix.to_dense(), again.mix.to_dense())
    after = tokens.apply(decision)
    assert 1 <= len(after) <= len(tokens)
    held = after.state()
    assert int(after.size.sum()) == int((held >= 0).sum())
    assert bool(torch.isfinite(after.features).all())


@pytest.mark.parametrize("name", TABLE_STAGES)
def test_a_protected_token_stays(name: str) -> None:
    from dataclasses import replace

    stage: Any = STAGES[name]()
    tokens = table(torch.ones(36, 4), 6, 6)
    marks = torch.zeros(36, dtype=torch.bool)
    marks[[0, 17]] = True
    tokens = replace(tokens, protected=marks)
    after = tokens.apply(stage.decide(tokens, view_of(tokens, 0.0)))
    assert bool((after.state()[marks] >= 0).all())


@pytest.mark.parametrize("name", sorted(set(TABLE_STAGES) - BLIND))
def test_nan_in_what_a_stage_reads_is_an_error(name: str) -> None:
    stage: Any = STAGES[name]()
    tokens = table(torch.full((324, 4), float("nan")), 18, 18)
    with pytest.raises(VtcError):
        stage.decide(tokens, view_of(tokens, float("nan")))


@pytest.mark.parametrize("name", sorted(BLIND))
def test_a_blind_stage_is_not_moved_by_what_it_sees(name: str) -> None:
    stage: Any = STAGES[name]()
    kept = []
    for fill in (1.0, float("nan")):
        tokens = table(torch.full((324, 4), fill), 18, 18)
        kept.append(stage.decide(tokens, view_of(tokens, fill)).keep)
    assert torch.equal(*kept) and len(kept[0]) == 64


@pytest.mark.parametrize("visual", [0, 1, 4])
@pytest.mark.parametrize("name", CACHE_STAGES)
def test_a_cache_policy_drops_text_only_if_it_says_so(name: str, visual: int) -> None:
    stage: Any = STAGES[name]()
    if stage.evicts_text:
        stage = STAGES[name](visual_only=True)
    assert not stage.evicts_text
    seen = entries(visual + 5, range(3, visual + 3), heads=2)
    attention = torch.rand(4, visual + 5)
    for budget in (None, 1, 100) if stage.meets_budget else (None,):
        signals = view(attention[:, None], attention, budget=budget)
        try:
            answer = stage.decide(seen, signals)
        except BudgetError:
            continue
        for decision in [answer] if isinstance(answer, Decision) else answer:
            assert decision.is_pruning
            text = (~seen.visual).nonzero()[:, 0].tolist()
            assert set(decision.keep.tolist()) >= set(text)
