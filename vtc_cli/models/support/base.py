"""What the engine needs to know of a model family; one adapter file a family provides it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vtc_cli.core.errors import ModelError
from vtc_cli.core.media import Media
from vtc_cli.core.shape import ModelShape
from vtc_cli.core.signals import FrameScorer
from vtc_cli.core.tokens import Grid

# Signals that every family gives: the engine reads them off the projector and the decoder.
COMMON_SIGNALS = frozenset(
    {
        "vision_features",
        "projected_features",
        "text_embeddings",
        "attention_rows",
        "attention_output",
        "attention_projection",
        "keys",
        "values",
        "hidden",
    }
)
# Signals of a tower whose attention runs over all patches of a picture.
TOWER_SIGNALS = frozenset({"vision_received_attention", "vision_keys"})
CLASS_SIGNALS = frozenset({"vision_cls_attention"})  # of a tower with a [CLS] row


@dataclass(frozen=True, eq=False)
class Prompt:
    """A question about one picture as the model takes it.

    Attributes:
        input_ids: (1, S) int64, one placeholder for each original visual token.
        position_ids: (..., 1, S) int64, ids of the uncompressed prompt.
        visual_index: (N0,) int64, places of the placeholders in the sequence, raster order.
        encoder_inputs: what the vision tower takes, for instance `pixel_values`.
        grid: geometry of the N0 visual tokens.
        patch_boxes: (N0, 4) float, left, top, right, bottom of every token in picture pixels.
        question: the text asked.
        warnings: what was done to the picture that the reader must know.
        frame_scorer: scores the frames by the question; None for the model's own means.
    """

    input_ids: Tensor
    position_ids: Tensor
    visual_index: Tensor
    encoder_inputs: Mapping[str, Tensor]
    grid: Grid
    patch_boxes: NDArray[np.float64]
    question: str
    warnings: tuple[str, ...] = ()
    frame_scorer: FrameScorer | None = None

    @property
    def prompt_tokens(self) -> int:
        """S, all tokens of the uncompressed prompt."""
        return int(self.input_ids.shape[1])


@dataclass(frozen=True, eq=False)
class EncoderOutput:
    """What the encoder gives: `features` (N, d) and the library's own object that carries them."""

    features: Tensor
    carrier: Any


class Adapter(ABC):
    """One loaded model with its processor.

    Class attributes:
        family: name of the adapter file.
        model_types: values of `config.model_type` that the adapter handles.
        provides: names of the signals that the family can give.
    """

    family: ClassVar[str]
    model_types: ClassVar[tuple[str, ...]]
    provides: ClassVar[frozenset[str]]

    def __init__(self, model: Any, processor: Any) -> None:
        self.model = model
        self.processor = processor

    @classmethod
    @abstractmethod
    def load(cls, source: str, **options: Any) -> Adapter:
        """Load a checkpoint in the Hugging Face format; `options` go to `from_pretrained`."""

    @classmethod
    @abstractmethod
    def narrow(cls, seed: int) -> Adapter:
        """Random weights at true depth and token geometry, shrunk in width."""

    @classmethod
    def true_size(cls, fields: Mapping[str, Any], build: Callable[[Any, Any], Any]) -> Adapter:
        """Random weights at true size.

        Args:
            fields: of the library's configuration class.
            build: makes the model of a class and a configuration, on its device and in its dtype.

        Raises:
            ModelError: the family ships no true sizes.
        """
        raise ModelError(
            f"the family {cls.family} ships no true sizes", hint=f"narrow:{cls.family}"
        )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.model.device
        return device

    @property
    def decoder(self) -> Any:
        """The text model with `layers`, `rotary_emb` and `embed_tokens`."""
        return self.model.get_decoder()

    @property
    @abstractmethod
    def shape(self) -> ModelShape:
        """Sizes of the model."""

    @property
    @abstractmethod
    def tower_layers(self) -> Sequence[nn.Module]:
        """Blocks of the vision tower."""

    @abstractmethod
    def tower_attention(self, layer: int) -> nn.Module:
        """The attention module of tower block `layer`."""

    @property
    @abstractmethod
    def projector(self) -> nn.Module:
        """The map from tower states to decoder width; its input has one row a visual token."""

    @property
    def decoder_layers(self) -> Sequence[nn.Module]:
        """Blocks of the decoder."""
        layers: Sequence[nn.Module] = self.decoder.layers
        return layers

    def decoder_attention(self, layer: int) -> nn.Module:
        """The attention module of decoder block `layer`."""
        module: nn.Module = self.decoder.layers[layer].self_attn
        return module

    def pooled(self, patches: Tensor, grid: Grid) -> Tensor:
        """Means over the patches that the model joins to each visual token.

        A signal of the tower thus becomes one of the tokens: attention to a token is the mean over
        its patches, its key their mean key. Nothing changes where tower rows are the tokens.

        Args:
            patches: (P, ...) values of all patches, frame after frame in raster order.
            grid: geometry of the visual tokens.

        Returns:
            (N0, ...) of the same dtype.
        """
        side = round(self.shape.merged_patches**0.5)
        if side == 1:
            return patches
        inner = patches.shape[1:]
        blocks = patches.reshape(grid.frames, grid.rows, side, grid.columns, side, *inner)
        return blocks.float().mean(dim=(2, 4)).flatten(0, 2).to(patches.dtype)

    @abstractmethod
    def prepare(self, media: Media, question: str) -> Prompt:
        """Turn a picture and a question into model inputs on the device."""

    @abstractmethod
    def encode(self, prompt: Prompt) -> EncoderOutput:
        """Run tower and projector."""

    @abstractmethod
    def carry(self, features: Tensor) -> EncoderOutput:
        """An encoder's output object around `features` (N, d) that no tower of this run made."""

    @abstractmethod
    def prefill_arguments(self, output: EncoderOutput, features: Tensor) -> dict[str, Any]:
        """Arguments that hand `features` (N, d) to the model in place of the encoder's own."""

    def sequence_arguments(self, input_ids: Tensor) -> dict[str, Any]:
        """Further arguments of a prefill that go along with the tokens `input_ids` (1, n)."""
        return {}

    def rotary(self, hidden: Tensor, position_ids: Tensor, layer: int) -> Any:
        """What decoder layer `layer` takes as `position_embeddings` for `position_ids` (..., n)."""
        return self.decoder.rotary_emb(hidden, position_ids=position_ids)

    def attention_window(self, layer: int) -> int | None:
        """Tokens that a query of decoder layer `layer` sees, itself included; None for all."""
        return None

    def text_embeddings(self, token_ids: Tensor) -> Tensor:
        """(T, d) embeddings of `token_ids` (T,)."""
        embeddings: Tensor = self.decoder.embed_tokens(token_ids)
        return embeddings

    def stop_ids(self) -> frozenset[int]:
        """Token ids that end an answer."""
        ids = self.model.generation_config.eos_token_id
        return frozenset([] if ids is None else [ids] if isinstance(ids, int) else ids)

    def text(self, token_ids: Sequence[int]) -> str:
        """The words of `token_ids` without special tokens."""
        tokenizer = self.processor.tokenizer
        words: str = tokenizer.decode(list(token_ids), skip_special_tokens=True)
        return words.strip()
