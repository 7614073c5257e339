"""Sizes of transformer stacks read from the library's configurations."""

from __future__ import annotations

from typing import Any

from vtc_cli.core.shape import TransformerShape

# Rows that a tower puts before its patches: [CLS] or none.
CLASS_ROWS = {"clip_vision_model": 1, "siglip_vision_model": 0}


def deepest_layer(config: Any) -> int:
    """Layers of the tower whose work reaches the features, from `vision_feature_layer`.

    It is an index of hidden states, of which the first is the embedding, or several of them.
    """
    chosen, depth = config.vision_feature_layer, config.vision_config.num_hidden_layers
    layers = [chosen] if isinstance(chosen, int) else chosen
    return max(layer if layer >= 0 else depth + 1 + layer for layer in layers)


def joined_layers(config: Any) -> str:
    """What a model does that reads several layers of its tower, in words; empty if it reads one."""
    chosen = config.vision_feature_layer
    if isinstance(chosen, int) or len(chosen) == 1:
        return ""
    return f"this model reads {len(chosen)} layers of its tower side by side"


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
