"""Bytes of the key/value cache."""

from __future__ import annotations

from vtc_cli.core.errors import MeasurementError
from vtc_cli.core.shape import TransformerShape

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
