"""Sizes read off the library's configurations."""

from __future__ import annotations

from typing import Any

from vtc_cli.core.shape import TransformerShape


def decoder_shape(config: Any) -> TransformerShape:
    """Sizes of a Llama-style text configuration."""
    heads = config.num_attention_heads
    return TransformerShape(
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        heads=heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        mlp_width=config.intermediate_size,
        gated_mlp=True,
        vocabulary=config.vocab_size,
    )
