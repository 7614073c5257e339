"""VTC-CLS after its sheet: which layers are added up, and its kinship with FasterVLM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.recipe.test_resolve import plan
from tests.stages.support import noise, table
from tests.tolerance import close
from vtc_cli.core.errors import VtcError
from vtc_cli.core.layout import Grid, Layout
from vtc_cli.core.signals import Produced, Signals
from vtc_cli.stages.fastervlm import ClsAttention
from vtc_cli.stages.vtc_cls import SummedAttention

TOWER = frozenset({"vision_received_attention"})


def layered(rows: Sequence[Tensor], name: str = "vision_cls_attention") -> Signals:
    """Layer l gives `rows[l]`."""
    producers = {name: lambda layer: Produced(rows[layer])}
    grid = Grid(1, 1, len(rows[0]))
    return Signals(
        producers, layout=Layout.of(grid), decoder_layers=32, original_tokens=grid.tokens
    )


PAIR = [torch.tensor([0.5, 0.3, 0.1, 0.1]), torch.tensor([0.1, 0.2, 0.6, 0.1])]


def test_hand_case_of_the_sheet() -> None:
    tokens = table(noise(4), 1, 4)
    both = SummedAttention(first_layer=0, last_layer=1, tokens=2).decide(tokens, layered(PAIR))
    assert both.keep.tolist() == [0, 2]
    assert both.scores is not None
    close(both.scores, torch.tensor([0.6, 0.5, 0.7, 0.2]), terms=2)
    second = SummedAttention(first_layer=1, last_layer=1, tokens=2).decide(tokens, layered(PAIR))
    assert second.keep.tolist() == [1, 2]


def test_seven_of_24_layers_count_and_the_last_one_never_does() -> None:
    rows = [torch.rand(50, generator=torch.Generator().manual_seed(n)) for n in range(24)]
    tokens, stage = table(noise(50), 5, 10), SummedAttention(tokens=9)
    first = stage.decide(tokens, layered(rows))
    assert stage.watched_layers == tuple(range(16, 23))
    for layer in range(24):
        spiked = list(rows)
        spiked[layer] = rows[layer] + 9 * torch.eye(50)[int(first.scores.argmin())]  # type: ignore[union-attr]
        again = stage.decide(tokens, layered(spiked))
        assert torch.equal(again.keep, first.keep) == (layer not in range(16, 23)), layer


def test_one_layer_is_fastervlm() -> None:
    rows = [torch.rand(36, generator=torch.Generator().manual_seed(n)) for n in range(24)]
    tokens = table(noise(36), 3, 4, frames=3)
    mine = SummedAttention(first_layer=22, last_layer=22, tokens=10).decide(tokens, layered(rows))
    other = ClsAttention(attention_layer=22, tokens=10).decide(tokens, layered(rows))
    assert torch.equal(mine.keep, other.keep)


def test_a_tower_without_cls_ranks_by_what_tokens_receive_and_says_so() -> None:
    view = layered(PAIR, "vision_received_attention")
    decision = SummedAttention(first_layer=0, last_layer=1, tokens=2).decide(
        table(noise(4), 1, 4), view
    )
    assert decision.keep.tolist() == [0, 2] and "no [CLS]" in decision.note


def test_ties_protected_tokens_and_room_for_all() -> None:
    even = layered([torch.full((5,), 0.2)] * 2)
    stage = SummedAttention(first_layer=0, last_layer=1, tokens=2)
    tokens = table(noise(5), 1, 5)
    assert stage.decide(tokens, even).keep.tolist() == [0, 1]
    marked = replace(tokens, protected=torch.tensor([False, False, False, True, False]))
    assert stage.decide(marked, even).keep.tolist() == [0, 3]
    assert replace(stage, tokens=5).decide(tokens, even).is_identity


def test_a_range_without_layers_is_a_fault_of_the_recipe() -> None:
    with pytest.raises(ValueError, match="no layer is left"):
        SummedAttention(first_layer=23, last_layer=22)
    with pytest.raises(VtcError, match="no layer is left"):
        plan("vtc_cls", vision=2, family_signals=TOWER)  # the first late layer is the last one


@pytest.mark.parametrize(("depth", "ends"), [(24, (16, 22)), (6, (4, 4)), (27, (18, 25))])
def test_the_range_on_towers_of_other_depths(depth: int, ends: tuple[int, int]) -> None:
    stage = plan("vtc_cls", vision=depth, family_signals=TOWER).encoder[0].stage
    assert isinstance(stage, SummedAttention)
    assert (stage.first_layer, stage.last_layer) == ends


@pytest.mark.parametrize("tokens", [256, 128, 64])
def test_official_fidelity_applies_the_numbers_of_the_paper(tokens: int) -> None:
    planned = plan("vtc_cls", budget=float(tokens), fidelity="official", family_signals=TOWER)
    stage = planned.encoder[0].stage
    assert isinstance(stage, SummedAttention)
    assert stage.tokens == tokens and stage.watched_layers == tuple(range(16, 23))
    assert (planned.positions, planned.budget) == ("renumbered", None)
