"""The training loop that every phase shares: time budget, schedule, checkpoints, log."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

Report = dict[str, tuple[float, float]]
StepFunction = Callable[[], tuple[Tensor, Report]]
FLOOR = 0.03


@dataclass
class Phase:
    """One phase: what is trained, for how long, and where its checkpoint lies.

    `minutes` counts time spent in this phase over all runs, so a resumed run may alter it and
    the cosine schedule follows the new budget.
    """

    name: str
    modules: dict[str, nn.Module]
    minutes: float
    rate: float
    folder: Path
    device: torch.device
    save_minutes: float = 4.0
    log_steps: int = 100
    warmup_steps: int = 150
    step: int = 0
    elapsed: float = 0.0
    done: bool = False
    tallies: Report = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The checkpoint file of this phase."""
        return self.folder / f"{self.name}.pt"

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters that this phase trains."""
        for module in self.modules.values():
            yield from (value for value in module.parameters() if value.requires_grad)


def run_phase(phase: Phase, step_function: StepFunction) -> None:
    """Train until the budget is spent; a finished phase only loads its result."""
    optimizer = torch.optim.AdamW(
        phase.parameters(), lr=phase.rate, weight_decay=0.05, betas=(0.9, 0.98)
    )
    load_phase(phase, optimizer)
    last, saved = time.monotonic(), phase.elapsed
    while not phase.done:
        _train_step(phase, optimizer, step_function)
        now = time.monotonic()
        phase.elapsed, last = phase.elapsed + now - last, now
        phase.done = phase.elapsed >= phase.minutes * 60
        if phase.done or phase.step % phase.log_steps == 0:
            _log(phase)
        if phase.done or phase.elapsed - saved > phase.save_minutes * 60:
            save_phase(phase, optimizer)
            saved = phase.elapsed


def _train_step(
    phase: Phase, optimizer: torch.optim.Optimizer, step_function: StepFunction
) -> None:
    """Do one optimizer step at the learning rate that the schedule gives."""
    for group in optimizer.param_groups:
        group["lr"] = phase.rate * schedule(phase)
    with torch.autocast(phase.device.type, dtype=torch.bfloat16):
        loss, report = step_function()
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_(list(phase.parameters()), 1.0)
    optimizer.step()
    phase.step += 1
    for key, (hits, total) in {**report, "loss": (loss.item(), 1.0)}.items():
        old = phase.tallies.get(key, (0.0, 0.0))
        phase.tallies[key] = (old[0] + hits, old[1] + total)


def schedule(phase: Phase) -> float:
    """Return the factor on the learning rate: warm-up by steps, cosine by time spent."""
    part = min(1.0, phase.elapsed / (phase.minutes * 60))
    cosine = 0.5 * (1 + math.cos(math.pi * part))
    return min(1.0, (phase.step + 1) / phase.warmup_steps) * (FLOOR + (1 - FLOOR) * cosine)


def _log(phase: Phase) -> None:
    """Print the mean of every tally since the last log line."""
    means = {key: hits / max(total, 1e-9) for key, (hits, total) in sorted(phase.tallies.items())}
    text = " ".join(f"{key}={value:.3f}" for key, value in means.items())
    spent = f"{phase.elapsed / 60:.1f}/{phase.minutes:.1f} min"
    print(f"{phase.name} step {phase.step} {spent} {text}", flush=True)
    phase.tallies.clear()


def save_phase(phase: Phase, optimizer: torch.optim.Optimizer) -> None:
    """Write the checkpoint; the old one is replaced only when the new one is complete."""
    state: dict[str, Any] = {
        "step": phase.step,
        "elapsed": phase.elapsed,
        "done": phase.done,
        "modules": {name: module.state_dict() for name, module in phase.modules.items()},
        "optimizer": optimizer.state_dict(),
    }
    phase.folder.mkdir(parents=True, exist_ok=True)
    partial = phase.path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, phase.path)


def load_phase(phase: Phase, optimizer: torch.optim.Optimizer | None = None) -> bool:
    """Load the checkpoint of this phase, if there is one; say whether there was."""
    if not phase.path.exists():
        return False
    state = torch.load(phase.path, map_location=phase.device, weights_only=True)
    phase.step, phase.elapsed = state["step"], state["elapsed"]
    phase.done = bool(state["done"]) and phase.elapsed >= phase.minutes * 60 * 0.99
    load_modules(phase.path, phase.modules)
    if optimizer is not None:
        optimizer.load_state_dict(state["optimizer"])
    print(f"{phase.name}: from checkpoint at step {phase.step}", flush=True)
    return True


def load_modules(path: Path, modules: dict[str, nn.Module]) -> None:
    """Load modules from a checkpoint by their names in it."""
    state = torch.load(path, map_location="cpu", weights_only=True)["modules"]
    for name, module in modules.items():
        module.load_state_dict(state[name])
