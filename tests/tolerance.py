"""How far two computations of the same values may lie apart: one rule for the whole suite.

Floating point sums depend on their order, and the order on instruction set, threads and batch, so
equal code gives other last digits on another machine. The allowed error is

    2 x (eps(dtype) + sqrt(terms) x eps(sums)) x sqrt(depth) x largest |expected|

- `eps(dtype)`: one stored value is off by at most half of it. Half precision is summed in float32,
  every other dtype in itself.
- `sqrt(terms)`: the rounding errors of a sum of n products are of either sign and nearly
  independent, so they grow as a random walk (Higham & Mary 2019, doi:10.1137/18M1226312), not as
  their worst case n.
- `sqrt(depth)`: each of the chained layers adds an error of its own to the residual stream; again
  a random walk. The worst case multiplies the norms of all layers: after 30 layers it allows any
  value, and a wrong row would pass.
- the largest magnitude, not that of each element: where summands cancel, the error is theirs.
- 2: both sides are off, and the largest of many errors is compared.

So a bound holds on every machine and follows from numbers that stand in the test. Where both sides
make the same operations on the same shapes, or only copy and reorder, nothing may differ: such
tests say `torch.equal` or `==`. `pytest.approx` and numpy's `assert_allclose` stay for Python's
float64 arithmetic and for figures given with few digits; their bounds lie a million times above its
rounding.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vtc_cli.models.support.base import Adapter

FACTOR = 2.0


@dataclass
class Largest:
    """The largest error of this process as a share of what was allowed, and its test."""

    share: float = 0.0
    test: str = ""


LARGEST = Largest()


def close(
    actual: Any,
    expected: Any,
    *,
    terms: int = 1,
    depth: int = 1,
    model: Adapter | None = None,
    scale: float | None = None,
) -> None:
    """Assert that `actual` is `expected` but for rounding.

    Args:
        actual: tensor, array, number or list of numbers.
        expected: the same shape; its dtype is that of `actual`, or a reference of more digits.
        terms: products in the longest sum behind a value.
        depth: layers chained.
        model: takes `terms` and `depth` from tower, projector and decoder of this model.
        scale: largest magnitude of what was summed, where that is more than of what came out.
    """
    found, wanted = double(actual), double(expected)
    assert found.shape == wanted.shape, f"shape {tuple(found.shape)}, not {tuple(wanted.shape)}"
    dtype = coarser(actual, expected)
    if isinstance(actual, Tensor) and isinstance(expected, Tensor):
        same = actual.dtype == expected.dtype or expected.dtype == torch.float64
        assert same, f"{actual.dtype}, not {expected.dtype}"
    if found.numel() == 0:
        return
    error = torch.where(found == wanted, 0.0, (found - wanted).abs())  # infinity is itself
    error = error.masked_fill(error.isnan(), float("inf"))
    most = allowed(wanted, dtype, terms=terms, depth=depth, model=model, scale=scale)
    worst = int(error.argmax())
    largest = float(error.flatten()[worst])
    share = largest / most if most else (0.0 if largest == 0 else float("inf"))
    if share > LARGEST.share:
        LARGEST.share, LARGEST.test = share, os.environ.get("PYTEST_CURRENT_TEST", "")
    place = tuple(int(i) for i in np.unravel_index(worst, tuple(error.shape)))
    assert share <= 1, (
        f"largest error {largest:.3g} at {place}, {most:.3g} allowed for {dtype}: "
        f"{float(found.flatten()[worst]):.9g} for {float(wanted.flatten()[worst]):.9g}; "
        f"{int((error > most).sum())} of {error.numel()} values are beyond"
    )


def apart(scores: Any, chosen: Any, **options: Any) -> None:
    """Assert that no rounding can move the border between chosen scores and the others.

    For tests that expect a set of indices: the least chosen score lies further above the largest
    other one than twice what two computations of them may differ by.

    Args:
        scores: (N,) values that are ranked.
        chosen: indices of the largest.
        options: of `close`, how the scores were computed.
    """
    values = double(scores)
    inside = torch.zeros(len(values), dtype=torch.bool)
    inside[torch.as_tensor(chosen)] = True
    if bool(inside.all()) or not bool(inside.any()):
        return
    gap = float(values[inside].min() - values[~inside].max())
    most = 2 * allowed(values, coarser(scores), **options)
    assert gap > most, f"chosen and other scores lie {gap:.3g} apart, rounding moves {most:.3g}"


def allowed(
    expected: Tensor,
    dtype: torch.dtype,
    *,
    terms: int = 1,
    depth: int = 1,
    model: Adapter | None = None,
    scale: float | None = None,
) -> float:
    """The largest error of the rule above."""
    if model is not None:
        terms, depth = longest_sum(model), chained_layers(model)
    sums = torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
    finite = expected[torch.isfinite(expected)].abs()
    largest = scale if scale is not None else float(finite.max()) if finite.numel() else 0.0
    step = torch.finfo(dtype).eps + sqrt(terms) * torch.finfo(sums).eps
    return FACTOR * step * sqrt(depth) * largest


def longest_sum(model: Adapter) -> int:
    """Products in the longest sum of a model's linear maps."""
    shape = model.shape
    maps = [shape.patch_inputs, *(inputs for inputs, _ in shape.projector)]
    for stack in (shape.vision, shape.decoder):
        maps += [stack.width, stack.heads * stack.head_dim, stack.mlp_width]
    return max(maps)


def chained_layers(model: Adapter) -> int:
    """Blocks of the tower, maps of the projector and blocks of the decoder."""
    shape = model.shape
    return shape.vision.layers + len(shape.projector) + shape.decoder.layers


def double(values: Any) -> Tensor:
    """`values` in float64 on the CPU."""
    if isinstance(values, Tensor):
        return values.detach().to("cpu", torch.float64)
    return torch.as_tensor(np.asarray(values, dtype=np.float64))


def coarser(*values: Any) -> torch.dtype:
    """The dtype with the fewest digits; numbers of Python have those of float64."""
    dtypes = [torch.float64]
    for each in values:
        if isinstance(each, np.ndarray | np.floating):
            each = torch.from_numpy(np.empty(0, dtype=each.dtype))
        if isinstance(each, Tensor) and each.is_floating_point():
            dtypes.append(each.dtype)
    return max(dtypes, key=lambda dtype: torch.finfo(dtype).eps)
