"""What happened to every patch as plain data, read from the trace; the page's script draws it.

Patches and tokens are numbered by the original tokens in raster order. A *token* of a step is named
after its anchor, the patch whose place it takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vtc_cli.core.decision import Decision
from vtc_cli.core.errors import UsageError
from vtc_cli.core.layout import Grid, Layout
from vtc_cli.core.media import Media
from vtc_cli.core.trace import StageRecord, Trace
from vtc_cli.report.build import information_layers
from vtc_cli.report.marks import FORMS, PALETTE
from vtc_cli.report.stages import short

CURVES = (
    "rank",
    "effective_rank",
    "stable_rank",
    "energy_rank",
    "attention_mass",
)
DIGITS = 5  # of figures that the page shows with three or four
Plain = dict[str, Any]


def page_data(
    trace: Trace,
    media: Media,
    patch_boxes: NDArray[np.float64],
    baseline: Mapping[str, Any] | None = None,
) -> Plain:
    """Everything that the page's script needs, as JSON holds it.

    Args:
        trace: the run; it may have stopped before the answer and need not have been observed.
        media: its picture or video.
        patch_boxes: (N0, 4) left, top, right, bottom of every original token in picture pixels.
        baseline: the block of the full model in the result file, if it ran.

    Raises:
        UsageError: the first stage did not begin with the whole picture.
    """
    steps = page_steps(trace)
    grid = page_grid(trace.layout)
    return {
        "picture": {"width": media.width, "height": media.height},
        "grid": {"frames": grid.frames, "rows": grid.rows, "columns": grid.columns},
        "boxes": np.round(patch_boxes, 2).tolist(),
        "marks": {"colours": [_hex(colour) for colour in PALETTE], "forms": list(FORMS)},
        "steps": steps,
        "decoder": _decoder(trace),
        "curves": _curves(trace, baseline),
    }


def page_grid(layout: Layout) -> Grid:
    """The picture or the frames of a layout as one grid of equal frames.

    Raises:
        UsageError: they are not alike, for instance a picture that is seen coarsely and in crops.
    """
    grid = layout.equal_frames()
    if grid is None:
        raise UsageError(
            f"--html with {layout.spans} pictures and videos in {len(layout.grids)} grids",
            allowed="one picture, or a video of equal frames, whose tokens all have patches",
            hint="--overlay draws every view of every picture",
        )
    return grid


def page_steps(trace: Trace) -> list[Plain]:
    """The picture or video and then one entry for each encoder and prefill record.

    `tokens` (K) are the tokens left after the step in their order, `holder` (N0) the row that holds
    each patch, -1 if it is gone, `protected` the rows that no later stage may drop. `scores` and
    `ranks` (N) belong to the rows that came in, the tokens of the step before.
    """
    count = trace.original_tokens
    every = list(range(count))
    whole = f"{count} patches"
    name = name_of_whole(trace.layout)
    first = {"name": name, "place": whole, "short_place": whole, "phase": None}
    start: Plain = {"layer": None, "note": "", "scores": None, "ranks": None, "protected": []}
    steps = [{**first, **start, "tokens": every, "holder": every}]
    protected = torch.zeros(count, dtype=torch.bool)
    for record in token_records(trace):
        protected = _protected(protected, record.decision, record.stage)
        steps.append(_step(record, protected))
    return steps


def name_of_whole(layout: Layout) -> str:
    """What a page calls its input."""
    return "the video" if layout.frames_of(0) > 1 else "the picture"


def token_records(trace: Trace) -> list[StageRecord]:
    """The records of encoder and prefill stages, each a step of the page."""
    return [record for record in trace.records if record.holder is not None]


def place(phase: str, layer: int) -> str:
    """Where a stage acted, in words."""
    if layer < 0:
        return "the picture itself" if phase == "input" else "after the projector"
    return f"{'vision' if phase == 'encoder' else 'decoder'} layer {layer}"


def _short_place(phase: str, layer: int) -> str:
    """The same where there is little room."""
    if layer < 0:
        return "picture" if phase == "input" else "projected"
    return f"{'vision' if phase == 'encoder' else 'layer'} {layer}"


def _step(record: StageRecord, protected: Tensor) -> Plain:
    assert record.holder is not None
    scores = record.decision.scores
    return {
        "name": short(record.stage),
        "place": place(record.phase, record.layer),
        "short_place": _short_place(record.phase, record.layer),
        "phase": record.phase,
        "layer": record.layer,
        "note": record.decision.note,
        "scores": None if scores is None else [_figure(v) for v in scores.tolist()],
        "ranks": None if scores is None else score_ranks(scores.cpu()).tolist(),
        "protected": protected.nonzero()[:, 0].tolist(),
        "tokens": record.anchor.tolist(),
        "holder": record.holder.tolist(),
    }


def score_ranks(scores: Tensor) -> Tensor:
    """(N,) int64, 1 for the highest score; equal scores share the better rank."""
    order = scores.sort().values
    return scores.shape[0] - torch.searchsorted(order, scores, right=True) + 1


def _protected(before: Tensor, decision: Decision, stage: str) -> Tensor:
    """(K,) bool: survivors that hold a protected row or were marked now."""
    if before.shape[0] != decision.incoming_tokens:
        raise UsageError(
            f"{decision.incoming_tokens} tokens came in, {before.shape[0]} were known",
            where=stage,
            allowed="a run that began with the whole picture",
        )
    pairs = decision.mix.indices().cpu()
    held = torch.zeros(decision.kept_tokens)
    after: Tensor = held.index_add(0, pairs[0], before[pairs[1]].float()) > 0
    return after if decision.protect is None else after | decision.protect.cpu()


def _decoder(trace: Trace) -> Plain:
    """What each decoder layer saw and what its cache holds.

    `seen` is the step whose tokens each layer processed: a stage at layer L acts on its input.
    """
    layers = trace.model.shape.decoder.layers
    records = token_records(trace)
    acted = [record.layer if record.phase == "prefill" else 0 for record in records]
    return {
        "layers": layers,
        "kv_heads": trace.model.shape.decoder.kv_heads,
        "ran": bool(trace.visual_tokens),
        "seen": [sum(at <= layer for at in acted) for layer in range(layers)],
        "caches": _caches(trace, layers),
    }


def _caches(trace: Trace, layers: int) -> Plain | None:
    """Tokens that each layer's cache still holds after the last policy; None without policies.

    Layers whose caches are alike share one of `sets`; None in `layers` is a cache that no policy
    touched. `repeated` says that a policy went on deciding while the answer grew.
    """
    records = [record for record in trace.records if record.phase == "decode"]
    if not records:
        return None
    last = {record.layer: tuple(record.anchor.tolist()) for record in records}
    sets = list(dict.fromkeys(last.values()))
    deciding = [(record.stage, record.layer) for record in records]
    return {
        "policies": list(dict.fromkeys(short(record.stage) for record in records)),
        "sets": [list(held) for held in sets],
        "layers": [sets.index(last[at]) if at in last else None for at in range(layers)],
        "repeated": len(set(deciding)) < len(deciding),
    }


def _curves(trace: Trace, baseline: Mapping[str, Any] | None) -> Plain:
    """Figures a layer of the run and of the full model; what was not measured is None."""
    full = None
    if baseline is not None:
        information = baseline.get("information") or {}
        full = _series(baseline["tokens"]["per_layer"], information.get("layers"))
    layers = information_layers(trace)
    taus = [layer["tau"] for layer in layers or [] if layer["tau"] is not None]
    return {
        "run": _series(trace.visual_tokens, layers),
        "full": full,
        "tau": taus[0] if taus else None,
    }


def _series(tokens: list[int], layers: list[Plain] | None) -> Plain:
    curves: Plain = {"tokens": list(tokens) or None}
    for name in CURVES:
        values = [_figure(layer[name]) for layer in layers or []]
        curves[name] = values if any(value is not None for value in values) else None
    return curves


def _figure(value: float | None) -> float | None:
    """Five significant digits; a figure that is no number is left out."""
    if value is None or not np.isfinite(value):
        return None
    return float(f"{value:.{DIGITS}g}")


def _hex(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
