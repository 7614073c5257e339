"""How close a compressed answer is to the full model's, without a dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vtc_cli.core.errors import MeasurementError

if TYPE_CHECKING:
    from torch import Tensor


def kl_nats(full_logits: Tensor, compressed_logits: Tensor) -> float:
    """`KL(full || compressed) = sum p_full (ln p_full - ln p_compressed)` in nats, in float64.

    Args:
        full_logits: (V,) logits of the full model.
        compressed_logits: (V,) logits under compression.

    Raises:
        MeasurementError: the vectors differ in length.
    """
    if full_logits.shape != compressed_logits.shape:
        found = f"logits {tuple(full_logits.shape)} and {tuple(compressed_logits.shape)}"
        raise MeasurementError(found, allowed="two vectors over the same vocabulary")
    full = full_logits.double().log_softmax(dim=-1)
    compressed = compressed_logits.double().log_softmax(dim=-1)
    share = full.exp()
    terms = (share * (full - compressed)).masked_fill(share == 0, 0.0)
    return max(float(terms.sum()), 0.0)  # rounding may leave -1e-17


def top1_agrees(full_logits: Tensor, compressed_logits: Tensor) -> bool:
    """Whether both would choose the same first token greedily."""
    return int(full_logits.argmax()) == int(compressed_logits.argmax())


def exact_match(full_ids: list[int], compressed_ids: list[int]) -> bool:
    """Whether both answers are the same, token for token."""
    return full_ids == compressed_ids


def answer_nll(logits: Tensor, answer_ids: list[int]) -> float:
    """Mean negative log-likelihood of a known answer, nats a token, in float64.

    Args:
        logits: (T, V), from which each token would be chosen with the answer so far fed in.
        answer_ids: T token ids.

    Raises:
        MeasurementError: as many logits as tokens are needed, and at least one.
    """
    if not answer_ids or logits.shape[0] != len(answer_ids):
        raise MeasurementError(f"{logits.shape[0]} rows of logits, {len(answer_ids)} tokens")
    chosen = logits.double().log_softmax(dim=-1)[range(len(answer_ids)), answer_ids]
    return -float(chosen.mean())


def answer_nll_delta(compressed_nll: float, full_nll: float) -> float:
    """Mean NLL of the full model's answer under compression minus under itself, nats a token."""
    return compressed_nll - full_nll
