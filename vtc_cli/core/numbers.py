"""Which numbers of recipes and command lines can be counted, indexed and computed with at all."""

from __future__ import annotations

import math

LARGEST_WHOLE = 10_000_000  # far above any count; products of two with counts fit into 64 bits
FLOAT_RANGE = (1e-30, 1e30)  # float32 holds these and their products with counts


def number_fault(value: int | float) -> str | None:
    """What would be allowed in place of `value`, None if it can be computed with."""
    if isinstance(value, int):
        return None if abs(value) <= LARGEST_WHOLE else f"at most {LARGEST_WHOLE} either way"
    low, high = FLOAT_RANGE
    if math.isfinite(value) and (value == 0 or low <= abs(value) <= high):
        return None
    return f"0, or from {low:g} to {high:g} either way"
