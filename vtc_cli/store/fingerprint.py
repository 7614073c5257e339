"""A fingerprint of a model's weights, to know whether tokens were made by the model at hand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor

SAMPLES = 1024  # values of each parameter that are read


def fingerprint(parameters: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 over names, shapes, dtypes and a sample of the values of every parameter.

    Of each parameter at most 1024 values count, evenly spread from the first one on: training moves
    them all, and models of many gigabytes are told apart in a moment. A single weight changed by
    hand between two samples goes unnoticed. The device does not matter, the dtype does.

    Args:
        parameters: (name, values) in the model's own order.
    """
    digest = hashlib.sha256()
    for name, values in parameters:
        head = f"{name} {tuple(values.shape)} {values.dtype}\n"
        digest.update(head.encode())
        digest.update(_sample(values.detach()))
    return digest.hexdigest()


def _sample(values: Tensor) -> bytes:
    flat = values.reshape(-1)
    stride = max(-(-flat.shape[0] // SAMPLES), 1)
    picked = flat[::stride].cpu().contiguous()
    return bytes(picked.view(torch.uint8).numpy().tobytes())
