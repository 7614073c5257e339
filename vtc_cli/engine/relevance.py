"""How much a frame has to do with the question: by what a model itself holds, or by a scorer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from vtc_cli.core.errors import SignalError
from vtc_cli.core.signals import FrameScorer, Produced

CHUNK_TOKENS = 64  # METok cuts its text into chunks of this many tokens
EPSILON = 1e-8  # below this norm a vector has no direction; its cosines count as 0
SOURCE = "the model's own projected features and text embeddings"


def own_relevance(features: Tensor, frame: Tensor, frames: int, text: Tensor) -> Produced:
    """Cosine of each frame's mean feature and the text vector, both in the decoder's input space.

    The text vector is the elementwise maximum, over chunks of 64 tokens, of the mean embedding of a
    chunk. METok takes a SigLIP pair of image and text encoder here; the features of a tower after
    its projector are aligned with text only as far as the model was trained to read them.

    Args:
        features: (N, d) visual features behind the projector.
        frame: (N,) int64, frame of each row.
        frames: F.
        text: (T, d) embeddings; with T = 0 every frame has relevance 0.

    Returns:
        (F,) float32; 0 for a frame without rows.
    """
    rows, width = features.shape
    flops = rows * width + text.shape[0] * width + 6 * frames * width
    if text.shape[0] == 0:
        return Produced(torch.zeros(frames, device=features.device), 0, SOURCE)
    totals = torch.zeros(frames, width, device=features.device)
    totals = totals.index_add(0, frame, features.float())
    counts = torch.bincount(frame, minlength=frames).clamp_min(1)
    chunks = [part.mean(dim=0) for part in torch.split(text.float(), CHUNK_TOKENS)]
    words = torch.stack(chunks).amax(dim=0)
    cosine = cosine_similarity(totals / counts[:, None], words[None], dim=1, eps=EPSILON)
    return Produced(cosine, flops, SOURCE)


def given_relevance(
    scorers: Sequence[FrameScorer], frames: Sequence[int], device: torch.device
) -> Produced:
    """What scorers say of each frame of each picture or video.

    Args:
        scorers: one a span, gives a score for each frame that was read.
        frames: frames of each span in the model's grid, at most as many as were read.
        device: where the scores are wanted.

    Returns:
        (F,) float32 of all spans with the cost and source of the scorers.

    Raises:
        SignalError: the scores of a span cannot be shared out evenly.
    """
    produced = [scorer() for scorer in scorers]
    scores = [
        _shared(each.value.to(device, torch.float32), count)
        for each, count in zip(produced, frames, strict=True)
    ]
    return Produced(torch.cat(scores), sum(each.flops for each in produced), produced[0].source)


def _shared(scores: Tensor, frames: int) -> Tensor:
    """(frames,) scores of the frames of a grid from those of the frames that were read.

    Where a family joins neighbouring frames to one of its grid, that one has the mean of theirs;
    the last may have fewer.
    """
    read = int(scores.shape[0])
    joined = -(-read // frames)
    if -(-read // joined) != frames:
        found = f"relevance of {read} frames for a grid of {frames}"
        raise SignalError(found, allowed="as many, or whole groups of neighbours")
    group = torch.arange(read, device=scores.device) // joined
    totals = torch.zeros(frames, device=scores.device).index_add(0, group, scores)
    return totals / torch.bincount(group)
