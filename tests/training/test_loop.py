"""Training resumes where it stopped, and packed questions do not see each other."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.tolerance import close
from training.attention import use_plain_attention
from training.data import Picture
from training.language_phase import run_decoder
from training.loop import Phase, Report, load_phase, run_phase, schedule
from training.model import build_model
from training.packing import WEIGHTS, pack
from training.scenes import compose
from training.statistics import score
from training.vision_phase import TOWER_WIDTH
from training.window_phase import digit_windows


def phase_of(folder: Path, minutes: float) -> Phase:
    torch.manual_seed(0)
    modules: dict[str, nn.Module] = {"layer": nn.Linear(4, 1)}
    return Phase("toy", modules, minutes, 1e-2, folder, torch.device("cpu"))


def toy_step(phase: Phase) -> tuple[Tensor, Report]:
    return phase.modules["layer"](torch.ones(2, 4)).square().mean(), {"right": (1.0, 2.0)}


def test_a_phase_resumes_with_step_time_and_weights(tmp_path: Path) -> None:
    first = phase_of(tmp_path, 0.002)
    run_phase(first, lambda: toy_step(first))
    second = phase_of(tmp_path, 0.002)
    run_phase(second, lambda: toy_step(second))
    assert (second.step, second.elapsed, second.done) == (first.step, first.elapsed, True)
    kept = second.modules["layer"].state_dict()
    for name, value in first.modules["layer"].state_dict().items():
        assert torch.equal(kept[name], value)


def test_a_larger_budget_takes_up_a_finished_phase(tmp_path: Path) -> None:
    first = phase_of(tmp_path, 0.002)
    run_phase(first, lambda: toy_step(first))
    longer = phase_of(tmp_path, first.elapsed / 60 + 0.002)
    assert load_phase(longer) and not longer.done
    run_phase(longer, lambda: toy_step(longer))
    assert longer.step > first.step


def test_the_schedule_warms_up_and_decays(tmp_path: Path) -> None:
    phase = phase_of(tmp_path, 1.0)
    assert schedule(phase) < 0.01
    phase.step, phase.elapsed = 1000, 30.0
    assert schedule(phase) == pytest.approx(0.515)
    phase.elapsed = 60.0
    assert schedule(phase) == pytest.approx(0.03)


def test_a_packed_block_equals_the_block_alone() -> None:
    torch.manual_seed(0)
    model = build_model().eval()
    use_plain_attention(model)
    sight = torch.randn(1, 144, TOWER_WIDTH)
    batch = pack([Picture(compose(3))], 60, random.Random(0), WEIGHTS)
    together = run_decoder(model, sight, batch)[0]
    chosen = batch.blocks[0] == 1
    for name in ("ids", "targets", "weights", "blocks", "positions"):
        setattr(batch, name, getattr(batch, name)[:, chosen])
    alone = run_decoder(model, sight, batch)[0]
    sizes = model.config.text_config
    close(together[:, chosen], alone, terms=sizes.intermediate_size, depth=sizes.num_hidden_layers)


def test_windows_are_the_boxes_of_the_digit() -> None:
    marks = torch.zeros(2, 24, 24, dtype=torch.uint8)
    marks[0, 3:7, 10:12] = 9
    assert digit_windows(marks).tolist() == [[3, 6, 10, 11], [-1, -1, -1, -1]]


def test_wilson_interval_of_a_known_case() -> None:
    result = score([True] * 90 + [False] * 10)
    assert result["accuracy"] == 0.9
    assert result["low"] == pytest.approx(0.8256, abs=1e-3)
    assert result["high"] == pytest.approx(0.9448, abs=1e-3)
