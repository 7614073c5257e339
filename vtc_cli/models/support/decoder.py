"""What the engine reads of the text model of a family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vtc_cli.core.errors import ModelError
from vtc_cli.models.support.prompt import Prompt
from vtc_cli.models.support.shapes import context_of


class DecoderAccess:
    """The text model of `model` and what its layers take; a family overrides where it differs.

    Attributes:
        model: the whole model of the library.
    """

    model: Any

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
    def decoder_layers(self) -> Sequence[nn.Module]:
        """Blocks of the decoder."""
        layers: Sequence[nn.Module] = self.decoder.layers
        return layers

    def decoder_attention(self, layer: int) -> nn.Module:
        """The attention module of decoder block `layer`."""
        module: nn.Module = self.decoder.layers[layer].self_attn
        return module

    @property
    def context(self) -> int | None:
        """Positions that the decoder was made for, rope scaling included; None if it names none."""
        return context_of(self.decoder.config)

    def positions_of(self, prompt: Prompt) -> int:
        """Positions that the whole prompt takes: the highest position id plus one."""
        return prompt.prompt_tokens

    def sequence_arguments(self, input_ids: Tensor) -> dict[str, Any]:
        """Further arguments of a prefill that go along with the tokens `input_ids` (1, n)."""
        return {}

    def rotary(self, hidden: Tensor, position_ids: Tensor, layer: int) -> Any:
        """What decoder layer `layer` takes as `position_embeddings` for `position_ids` (..., n)."""
        return self.decoder.rotary_emb(hidden, position_ids=position_ids)

    def layer_position_ids(self, position_ids: Tensor) -> Tensor:
        """What decoder layers take as `position_ids` (1, n) for those of a prompt, (..., 1, n)."""
        return position_ids

    def attention_window(self, layer: int) -> int | None:
        """Tokens that a query of decoder layer `layer` sees, itself included; None for all."""
        return None

    def text_embeddings(self, token_ids: Tensor) -> Tensor:
        """(T, d) embeddings of `token_ids` (T,)."""
        embeddings: Tensor = self.decoder.embed_tokens(token_ids)
        return embeddings

    def stop_ids(self) -> frozenset[int]:
        """Token ids that end an answer.

        Raises:
            ModelError: the checkpoint names something else.
        """
        found = self.model.generation_config.eos_token_id
        ids = found if isinstance(found, list | tuple) else [] if found is None else [found]
        if not all(type(each) is int for each in ids):
            raise ModelError(
                f"eos_token_id {found!r} in generation_config.json",
                where=getattr(self.model.config, "name_or_path", "") or None,
                allowed="token ids",
            )
        return frozenset(ids)
