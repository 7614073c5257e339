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
class TowerInput:
    """Pictures, frames or crops of one size that a tower sees, each attending to itself only.

    Attributes:
        count: how many.
        rows: of visual tokens in each, before anything behind the projector.
        columns: the same.
    """

    count: int
    rows: int
    columns: int


@dataclass(frozen=True)
class TowerPass:
    """The tower over pictures of one size.

    Attributes:
        input: what it saw.
        rows: rows that each layer processed for one picture, [CLS] included.
    """

    input: TowerInput
    rows: list[int]


@dataclass(frozen=True)
class ModelShape:
    """A vision tower, a projector and a decoder.

    Attributes:
        vision: the tower.
        patch_inputs: values a patch embedding reads (channels x patch x patch).
        patches: patches a picture or frame, 0 if its size decides.
        class_tokens: extra leading rows in the tower ([CLS]), 0 or 1.
        feature_layers: tower layers whose work reaches the features; the tower may run more.
        projector: (inputs, outputs) of each linear map between tower and decoder.
        decoder: the language model.
        merged_patches: patches that the model joins to one visual token between tower and
            projector; 1 means that the rows of the tower are the visual tokens.
        window: side, in tokens, of the windows to which most tower layers hold their attention, 0
            if none does.
        global_layers: tower layers that look at the whole picture all the same.
        packing: what happens between tower rows and visual tokens beside the joining of patches, in
            words, for instance that padding leaves; empty where nothing does.
        rows_beside_patches: rows that the projector reads of an input beside its patches: 1 where
            [CLS] is a visual token too, -1 where a patch is left out.
    """

    vision: TransformerShape
    patch_inputs: int
    patches: int
    class_tokens: int
    feature_layers: int
    projector: tuple[tuple[int, int], ...]
    decoder: TransformerShape
    merged_patches: int = 1
    window: int = 0
    global_layers: tuple[int, ...] = ()
    packing: str = ""
    rows_beside_patches: int = 0

    @property
    def between(self) -> str:
        """What happens to tower rows before they are visual tokens, in words; empty if nothing."""
        if self.merged_patches > 1:
            return f"this model joins {self.merged_patches} rows of its tower to one visual token"
        return self.packing

    def patches_of(self, seen: TowerInput) -> int:
        """Patches of one picture of `seen`."""
        return self.patches or seen.rows * seen.columns * self.merged_patches

    def tower_keys(self, layer: int, rows: int, seen: TowerInput) -> float:
        """Rows that each of `rows` tower rows of one picture looks at in `layer`, the mean."""
        if not self.window or layer in self.global_layers:
            return rows
        down, across = (_mean_window(side, self.window) for side in (seen.rows, seen.columns))
        return down * across * self.merged_patches


def _mean_window(side: int, window: int) -> float:
    """Mean length of the window that a token stands in, along one side of the picture."""
    rest = side % window
    return ((side - rest) * window + rest * rest) / side
