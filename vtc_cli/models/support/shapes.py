"""Sizes of transformer stacks read from the library's configurations."""

from __future__ import annotations

from typing import Any

from vtc_cli.core.shape import TransformerShape


def tower_shape(config: Any) -> TransformerShape:
    """Sizes of a CLIP-like vision configuration: plain attention, an MLP of two matrices."""
    heads = config.num_attention_heads
    return TransformerShape(
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        heads=heads,
        kv_heads=heads,
        head_dim=config.hidden_size // heads,
        mlp_width=config.intermediate_size,
        gated_mlp=False,
    )


def decoder_shape(config: Any) -> TransformerShape:
    """Sizes of a Llama-like text configuration: grouped queries, a gated MLP."""
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
