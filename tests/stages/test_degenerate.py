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
TABLE_STAGES = [
    name for name, cls in STAGES.items() if issubclass(cls, EncoderStage | PrefillStage)
]
CACHE_STAGES = [name for name, cls in STAGES.items() if issubclass(cls, DecodeStage)]

FEATURES = {
    "one token": (torch.ones(1, 4), 1, 1),
    "two tokens": (torch.tensor([[1.0, 0.0], [0.0, 1.0]]), 1, 2),
    "zero rows": (torch.zeros(36, 4), 6, 6),
    "all equal": (torch.ones(36, 4), 6, 6),
    "one row": (torch.randn(9, 4, generator=torch.Generator().manual_seed(0)), 1, 9),
    "huge values": (torch.full((36, 4), 1e18), 6, 6),
}


def view_of(stage: Any, tokens: TokenTable, content: Tensor) -> Any:
    """Every signal there is, made of `content` (N,)."""
    keys = content[:, None].expand(-1, 8).reshape(-1, 2, 4)
    return signals(
        tokens.layout,
        attention=content.expand(3, -1),
        cls=content,
        relevance=content[:: len(tokens) // tokens.layout.frames],
        output=tokens.features,
        layer=stage.layers[0] if isinstance(stage, PrefillStage) else -1,
        entering=len(tokens),
        vision_received_attention=content,
        vision_keys=keys,
        vision_class_state=tokens.features,
        keys=keys.transpose(0, 1),
        text_keys=torch.ones(2, 3, 4),
        normed_hidden=tokens.features,
        normed_text=torch.ones(3, tokens.features.shape[1]),
        visual_places=torch.arange(len(tokens)),
        text_places=torch.arange(len(tokens), len(tokens) + 3),
    )


def tenth(tokens: TokenTable) -> Tensor:
    return torch.full((len(tokens),), 0.1)


def decide(name: str, features: Tensor, rows: int, columns: int) -> tuple[TokenTable, Decision]:
    stage: Any = STAGES[name]()
    assert isinstance(stage, EncoderStage | PrefillStage)
    tokens = table(features, rows, columns)
    return tokens, stage.decide(tokens, view_of(stage, tokens, tenth(tokens)))


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
    after = tokens.apply(stage.decide(tokens, view_of(stage, tokens, torch.zeros(36))))
    assert bool((after.state()[marks] >= 0).all())


def outcome(name: str, content: Tensor) -> list[Any]:
    """What a stage makes of six frames of 96 tokens that hold `content` (576,)."""
    stage: Any = STAGES[name]()
    features = torch.stack([content, 1 - content, content**2, content**3], dim=1)
    tokens = table(features, 8, 12, frames=6)
    decision = stage.decide(tokens, view_of(stage, tokens, content))
    protect = [] if decision.protect is None else decision.protect.tolist()
    return [decision.keep.tolist(), decision.mix.to_dense().tolist(), protect]


@pytest.mark.parametrize("name", TABLE_STAGES)
def test_nan_is_an_error_where_it_is_read_and_moves_nothing_where_it_is_not(name: str) -> None:
    chance = torch.Generator().manual_seed(0)
    seen = [outcome(name, torch.rand(576, generator=chance)) for _ in range(3)]
    blind = seen[0] == seen[1] == seen[2]
    nan = torch.full((576,), float("nan"))
    if blind:
        assert outcome(name, nan) == seen[0]
    else:
        with pytest.raises(VtcError):
            outcome(name, nan)


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
