"""Sizes of transformer stacks read from the library's configurations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vtc_cli.core.errors import ModelError
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


def check_raster(config: Any, towers: Sequence[str], source: str) -> None:
    """See that the selected rows of the tower are its patches, for families that lay them out.

    Raises:
        ModelError: another tower, [CLS] among the features, or the first patch taken for it.
    """
    kind, strategy = config.vision_config.model_type, config.vision_feature_select_strategy
    if kind not in towers or (strategy == "default") != (CLASS_ROWS[kind] == 1):
        fitting = {each: "default" if CLASS_ROWS[each] else "full" for each in towers}
        raise ModelError(
            f"a {kind} tower with features by {strategy!r}",
            where=source,
            allowed=" or ".join(f"{each} by {how!r}" for each, how in fitting.items()),
        )


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


def context_of(config: Any) -> int | None:
    """Positions that a text configuration is made for, None if it does not say.

    `max_position_embeddings` is the extended length where the configuration names the original one
    beside it (YaRN, Llama 3, LongRoPE) and the original length where a factor stands alone (linear,
    dynamic): the larger of both readings is taken.
    """
    known = getattr(config, "max_position_embeddings", None)
    if not isinstance(known, int):
        return None
    rope = getattr(config, "rope_parameters", None) or {}
    factor = rope.get("factor") if isinstance(rope, dict) else None
    if not isinstance(factor, int | float):
        return known
    return max(known, int(factor * (rope.get("original_max_position_embeddings") or known)))


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
