"""Greedy answers to many questions about few pictures, sharing each picture's cache."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor
from transformers import DynamicCache, LlavaForConditionalGeneration, PreTrainedTokenizerFast

from training.data import GRID, image_processor
from training.language_phase import PREFIX
from training.packing import TURN
from training.tokenizer import EOS, PAD

MAX_NEW = 48
FIRST_TEXT = len(PREFIX) + GRID * GRID


@torch.no_grad()
def visual_tokens(model: LlavaForConditionalGeneration, pictures: list[Image.Image]) -> Tensor:
    """Return the projected features of pictures: (n, 576, width)."""
    pixels = image_processor()(pictures, return_tensors="pt")["pixel_values"]
    return torch.stack(list(model.get_image_features(pixel_values=pixels).pooler_output))


@torch.no_grad()
def answer_rows(
    model: LlavaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    sight: Tensor,
    places: Tensor,
    rows: Tensor,
    texts: list[str],
) -> list[str]:
    """Answer question i about picture rows[i], which shows the tokens `places` (n, kept)."""
    cache, seen = _read_pictures(model, sight, places)
    cache.batch_select_indices(rows)
    encoded = [[*tokenizer(text)["input_ids"], *TURN] for text in texts]
    length = max(map(len, encoded))
    ids = torch.tensor([[PAD] * (length - len(row)) + row for row in encoded])
    mask = torch.cat([torch.ones(len(ids), seen, dtype=torch.long), (ids != PAD).long()], 1)
    positions = (FIRST_TEXT - 1 + mask[:, seen:].cumsum(1)).clamp(min=0)
    answers = _decode(model, cache, ids, mask, positions)
    return [str(tokenizer.decode(_until_end(row))) for row in answers.tolist()]


def _read_pictures(
    model: LlavaForConditionalGeneration, sight: Tensor, places: Tensor
) -> tuple[DynamicCache, int]:
    """Fill a cache with the prefix and the kept visual tokens at their own positions."""
    count = len(sight)
    kept = sight.gather(1, places[..., None].expand(-1, -1, sight.shape[-1]))
    start = model.get_input_embeddings()(torch.tensor(PREFIX)).expand(count, -1, -1)
    positions = torch.cat([torch.arange(len(PREFIX)).expand(count, -1), len(PREFIX) + places], 1)
    cache = DynamicCache()
    inputs = torch.cat([start, kept], 1)
    model.model.language_model(inputs_embeds=inputs, position_ids=positions, past_key_values=cache)
    return cache, inputs.shape[1]


def _decode(
    model: LlavaForConditionalGeneration,
    cache: DynamicCache,
    ids: Tensor,
    mask: Tensor,
    positions: Tensor,
) -> Tensor:
    """Decode greedily until every row has ended: (n, new tokens)."""
    new: list[Tensor] = []
    ended = torch.zeros(len(ids), dtype=torch.bool)
    while len(new) < MAX_NEW and not ended.all():
        states = model.model.language_model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache
        ).last_hidden_state[:, -1]
        ids = model.lm_head(states).argmax(-1, keepdim=True)
        ended |= ids[:, 0] == EOS
        new.append(ids[:, 0])
        mask = torch.cat([mask, torch.ones_like(ids)], 1)
        positions = positions[:, -1:] + 1
    return torch.stack(new, 1)


def _until_end(row: list[int]) -> list[int]:
    """Cut a row at its first end token."""
    return row[: row.index(EOS)] if EOS in row else row
