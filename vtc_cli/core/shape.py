"""Sizes of a model as plain numbers, so that metrics never need the model itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TransformerShape:
    """One transformer stack.

    Attributes:
        layers: number of blocks.
        width: hidden size d.
        heads: query heads.
        kv_heads: key/value heads (fewer than `heads` under grouped-query attention).
        head_dim: channels a head.
        mlp_width: inner width of the MLP.
        gated_mlp: three MLP matrices (SwiGLU) instead of two.
        vocabulary: rows of the output head, 0 if there is none.
    """

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp_width: int
    gated_mlp: bool
    vocabulary: int = 0


@dataclass(frozen=True)
class ModelShape:
    """A vision tower, a projector and a decoder.

    Attributes:
        vision: the tower.
        patch_inputs: values a patch embedding reads (channels x patch x patch).
        patches: patches a picture.
        class_tokens: extra leading rows in the tower ([CLS]), 0 or 1.
        feature_layers: tower layers whose work reaches the features; the tower may run more.
        projector: (inputs, outputs) of each linear map between tower and decoder.
        decoder: the language model.
        merged_patches: patches that the model joins to one visual token between tower and
            projector; 1 means that the rows of the tower are the visual tokens.
    """

    vision: TransformerShape
    patch_inputs: int
    patches: int
    class_tokens: int
    feature_layers: int
    projector: tuple[tuple[int, int], ...]
    decoder: TransformerShape
    merged_patches: int = 1
