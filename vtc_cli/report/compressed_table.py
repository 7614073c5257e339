"""The short summary of a compressed picture that a person reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.padding import Padding

from vtc_cli.core.console import Console, Text
from vtc_cli.core.words import counted
from vtc_cli.report.compressed import CompressedReport
from vtc_cli.report.stages import stage_table
from vtc_cli.report.table import WIDEST
from vtc_cli.report.units import size

RANDOM = "random weights: which tokens are kept means nothing"


def render(report: CompressedReport, files: Sequence[Path], console: Console) -> None:
    """Print what was compressed, what each stage left, and the files with their sizes.

    Args:
        report: of one picture.
        files: what was written, all in one folder.
        console: to print on.
    """
    width = min(console.width, WIDEST)
    tokens = report.tokens
    parts: list[RenderableType] = [Text(line) for line in _head(report)]
    stages = stage_table(tokens.original, tokens.by_stage, width, report.input.kind)
    parts += ["", stages, "", Text(_left(report))]
    sizes = [f"{path.name} {size(path.stat().st_size)}" for path in files]
    parts += [Text(" · ".join(sizes)), Text(f"in {files[0].parent}")]
    console.print(Padding(Group(*parts), (0, 1)), width=width, soft_wrap=False)


def _head(report: CompressedReport) -> list[str]:
    model, media, recipe = report.model, report.input, report.recipe
    question = "no question" if media.question is None else f'"{media.question}"'
    budget = "" if report.tokens.requested is None else f" · budget {report.tokens.requested:g}"
    behaviour = f"{recipe.fidelity} behaviour, {recipe.positions} positions"
    lines = [
        f"{model.id} · {model.family} · {model.device} {model.dtype} · {model.weights}",
        f"{media.path} {media.width}x{media.height} · {question}",
        f"{recipe.name}{budget} · {behaviour}",
    ]
    return [RANDOM, *lines] if model.weights == "random" else lines


def _left(report: CompressedReport) -> str:
    """Counts in words."""
    tokens = report.tokens
    entering = f"{counted(tokens.original, 'token')}, {tokens.entering} enter the decoder"
    last = next((d for d in reversed(report.decisions) if d.phase == "prefill"), None)
    if last is None:
        return entering
    return f"{entering}, {tokens.final} are left by {last.stage} at layer {last.layer}"
