"""Bytes of the key/value cache."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from vtc_cli.core.errors import MeasurementError
from vtc_cli.core.shape import TransformerShape

if TYPE_CHECKING:
    from vtc_cli.core.plan import BudgetCounts
    from vtc_cli.core.trace import Trace

ITEM_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}


def full_kv_bytes(decoder: TransformerShape, prompt_tokens: int, dtype: str) -> int:
    """Cache of the uncompressed prompt: `2 * kv_heads * head_dim * entries * itemsize * layers`.

    Args:
        decoder: sizes of the decoder.
        prompt_tokens: entries that each layer would hold after the prefill.
        dtype: name of the cache's number type, for instance `bfloat16`.

    Raises:
        MeasurementError: the size of `dtype` is not known.
    """
    name = dtype.removeprefix("torch.")
    if name not in ITEM_BYTES:
        raise MeasurementError(f"a cache of {dtype}", allowed=", ".join(ITEM_BYTES))
    entry_bytes = 2 * decoder.kv_heads * decoder.head_dim * ITEM_BYTES[name]
    return entry_bytes * prompt_tokens * decoder.layers


@dataclass(frozen=True)
class CacheBudget:
    """A budget of cache entries and what became of it.

    Attributes:
        counts: what was counted, all entries or the visual ones.
        requested: entries a layer and head that were asked for.
        achieved: mean over layers of what each head holds after the prompt and its policies.
    """

    counts: BudgetCounts
    requested: float
    achieved: float

    @property
    def gap_entries(self) -> float:
        """Achieved minus requested."""
        return self.achieved - self.requested


def cache_budget(trace: Trace) -> CacheBudget | None:
    """The budget of a run whose cache policies alone follow one, else None."""
    plan = trace.plan
    if plan.requested is None or plan.budget_counts == "visual_tokens" or not trace.kv_entries:
        return None
    achieved = fmean(trace.kv_entries)
    if plan.budget_counts == "visual_entries":
        achieved -= fmean(trace.kv_text_entries)
    return CacheBudget(plan.budget_counts, plan.requested, achieved)


def cuts_cache_alone(trace: Trace) -> bool:
    """Whether cache policies cut something and no other stage ran: the prefill is the full one."""
    phases = {record.phase for record in trace.records}
    return phases == {"decode"} and trace.given is None
