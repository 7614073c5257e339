"""Singular directions of token matrices, for methods that rank and metrics that judge."""

from __future__ import annotations

import torch
from torch import Tensor


def information_contribution(rows: Tensor) -> Tensor:
    """The information contribution score of TokenCarve (arXiv 2503.10501), exactly.

    With X = U diag(sigma) V^T the score of row i is sum_j |U_ij| sigma_j, which equals the L1 norm
    of X_i V. The eigenvectors of the smaller Gram matrix, in float64, give U (N <= d) or V (N > d)
    without the full matrices of a singular value decomposition.

    Args:
        rows: (N, d), any float dtype.

    Returns:
        (N,) float64. Repeated singular values leave U, and so the score, undefined up to rotation.
    """
    matrix = rows.double()
    count, width = matrix.shape
    if count <= width:
        values, vectors = torch.linalg.eigh(matrix @ matrix.T)
        scores: Tensor = vectors.abs() @ values.clamp_min(0).sqrt()
        return scores
    _, basis = torch.linalg.eigh(matrix.T @ matrix)
    in_basis: Tensor = matrix @ basis
    return in_basis.abs().sum(dim=1)
