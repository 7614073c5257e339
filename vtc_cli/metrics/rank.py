"""Ranks of a matrix of token states: how many directions the tokens really fill.

All five read the same singular values, computed in float64 from the smaller Gram matrix, so that a
576 x 4096 matrix costs a 576 x 576 eigenproblem. Rounding of the input still counts: a bfloat16
model fills every direction a little, so `tau` always stands beside the numerical rank.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vtc_cli.core.errors import MeasurementError

TAU = 1e-5  # relative threshold of the public re-creation of TokenCarve's curve
ENERGY_SHARE = 0.99


@dataclass(frozen=True)
class Ranks:
    """The rank family of one matrix.

    Attributes:
        rank: singular values above `tau` times the largest.
        effective_rank: exp of the entropy of the normalised singular values (Roy and Vetterli,
            2007); between 1 and the rank.
        stable_rank: squared Frobenius norm over squared spectral norm.
        energy_rank: least number of singular values that hold 99 % of the energy.
        nuclear_norm: sum of the singular values.
        tau: the threshold of `rank`.
    """

    rank: int
    effective_rank: float
    stable_rank: float
    energy_rank: int
    nuclear_norm: float
    tau: float


def singular_values(matrix: Tensor, where: str = "") -> Tensor:
    """Singular values in descending order.

    The Gram form squares the condition: values below about 1e-8 of the largest are rounding.

    Args:
        matrix: (..., N, d), any float dtype; leading axes are a batch.
        where: the layer, for the error.

    Returns:
        (..., min(N, d)) float64.

    Raises:
        MeasurementError: NaN or infinity in the matrix.
    """
    rows = matrix.double()
    if not bool(rows.isfinite().all()):
        raise MeasurementError(
            "a matrix with NaN or infinity has no rank", where=where, hint="try --dtype float32"
        )
    count, width = rows.shape[-2:]
    gram = rows @ rows.mT if count <= width else rows.mT @ rows
    values: Tensor = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt().flip(-1)
    return values


def numerical_rank(values: Tensor, tau: float = TAU) -> int:
    """Number of singular values (n,) above `tau` times the largest; 0 for a zero matrix."""
    return int((values > tau * values.max()).sum()) if values.numel() else 0


def effective_rank(values: Tensor) -> float:
    """exp(-sum p ln p) with p = sigma / sum sigma; 0 for a zero matrix."""
    total = values.sum()
    if not values.numel() or float(total) == 0:
        return 0.0
    share = values / total
    share = share[share > 0]
    return float((-(share * share.log()).sum()).exp())


def stable_rank(values: Tensor) -> float:
    """Squared Frobenius over squared spectral norm; 0 for a zero matrix."""
    top = float(values.max()) if values.numel() else 0.0
    return float(values.square().sum()) / top**2 if top else 0.0


def energy_rank(values: Tensor, share: float = ENERGY_SHARE) -> int:
    """Least k so that the k largest sigma^2 sum to at least `share` of all; 0 for a zero matrix."""
    energy = values.sort(descending=True).values.square()
    total = float(energy.sum())
    return int((energy.cumsum(0) < share * total).sum()) + 1 if total else 0


def ranks(matrix: Tensor, tau: float = TAU, where: str = "") -> Ranks:
    """The rank family of a matrix (N, d).

    Raises:
        MeasurementError: NaN or infinity in the matrix; names `where`.
    """
    values = singular_values(matrix, where)
    return Ranks(
        rank=numerical_rank(values, tau),
        effective_rank=effective_rank(values),
        stable_rank=stable_rank(values),
        energy_rank=energy_rank(values),
        nuclear_norm=float(values.sum()),
        tau=tau,
    )
