"""What tests of families with tiles share: lights in boxes, plain answers, saved checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.engine.families import (
    LAYERS,
    family_oracle,
    family_session,
    own_arguments,
    own_logits,
)
from tests.engine.support import (
    QUESTION,
    Hidden,
    KeepAll,
    ProjectedPrune,
    ShrinkingPrune,
    noise_media,
    plan_of,
)
from tests.engine.test_oracle import alive_per_layer, alive_to_hidden
from tests.engine.test_tower_signals import ProbeReceived, ProbeSimilarity
from tests.tolerance import close
from vtc_cli.core.media import Media
from vtc_cli.core.plan import Plan
from vtc_cli.core.tokens import TokenTable
from vtc_cli.engine.decode import Generation
from vtc_cli.engine.reading import Request
from vtc_cli.models.support.base import Adapter

STEPS = 4


def clip(frames: int = 3, height: int = 40, width: int = 60, seconds: float = 1.5) -> Media:
    pictures = [noise_media(frame, height, width).frames[0] for frame in range(frames)]
    times = tuple(frame * seconds for frame in range(frames))
    return Media(np.stack(pictures), times, "video", "noise.mp4", "0" * 64)


def lit(width: int, height: int, box: Any) -> Media:
    """A black picture with one white box."""
    pixels = np.zeros((1, height, width, 3), dtype=np.uint8)
    left, top, right, bottom = np.round(box).astype(int)
    pixels[0, top:bottom, left:right] = 255
    return Media(pixels, (0.0,), "image", "x", "y")


def token_light(adapter: Adapter, media: Media) -> Tensor:
    """(N0,) mean light of the pixels that each token is made of, cut out by hand.

    Patches that the tower does not see are cut off; tokens go tile after tile, row by row.
    """
    prompt = adapter.prepare(media, QUESTION)
    pixels = prompt.encoder_inputs["pixel_values"].flatten(0, -4).mean(dim=1)
    patch = adapter.model.config.vision_config.patch_size
    patch = patch if isinstance(patch, int) else patch[0]
    side = patch * round(adapter.shape.merged_patches**0.5)
    wide = pixels.shape[-1] // side
    cells = pixels[:, : wide * side, : wide * side].reshape(-1, wide, side, wide, side)
    return cells.mean(dim=(2, 4)).flatten()


def decoded(adapter: Adapter, prompt: Any, plan: Plan, forced: list[int] | None = None) -> Any:
    chosen = None if forced is None else tuple(forced)
    generation = Generation(max_new_tokens=STEPS + 1, forced=chosen)
    trace, found = family_session(adapter)._pass(Request(prompt, plan, generation))
    return trace, torch.stack(found.logits)


@torch.inference_mode()
def plain(adapter: Adapter, prompt: Any) -> tuple[list[int], Tensor]:
    """Tokens of the library's `generate` and the logits of its own forward."""
    generated = adapter.model.generate(
        input_ids=prompt.input_ids,
        **own_arguments(adapter, prompt),
        max_new_tokens=STEPS + 1,
        do_sample=False,
    )
    tokens = generated[0, prompt.prompt_tokens :].tolist()
    return tokens, own_logits(adapter, prompt, tokens)


def tokens_inside(boxes: NDArray[np.float64], index: int) -> list[int]:
    """Tokens whose box lies inside that of token `index`, itself included."""
    left, top, right, bottom = boxes[index]
    inside = (boxes[:, :2] >= [left - 1e-6, top - 1e-6]).all(axis=1)
    inside &= (boxes[:, 2:] <= [right + 1e-6, bottom + 1e-6]).all(axis=1)
    found: list[int] = inside.nonzero()[0].tolist()
    return found


def alight(light: Tensor) -> list[int]:
    """Tokens that are nearly as bright as the brightest."""
    dark, bright = float(light.min()), float(light.max())
    return (light > dark + 0.75 * (bright - dark)).nonzero()[:, 0].tolist()  # type: ignore[no-any-return]


def answers_as_the_plain_model(adapter: Adapter, shown: Media | Sequence[Media]) -> None:
    """Bit for bit with everything kept, and as the masked model when pruned."""
    prompt = adapter.prepare(shown, QUESTION)
    tokens, logits = plain(adapter, prompt)
    trace, ours = decoded(adapter, prompt, plan_of(KeepAll()))
    assert trace.answer_ids == tokens
    assert torch.equal(ours, logits)
    plan = plan_of(ProjectedPrune(), ShrinkingPrune())
    trace, ours = decoded(adapter, prompt, plan, tokens)
    hidden = Hidden(prefill=alive_to_hidden(alive_per_layer(trace, LAYERS), prompt))
    with family_oracle(adapter, hidden, prompt.prompt_tokens), torch.inference_mode():
        masked = own_logits(adapter, prompt, tokens)
    close(ours, masked, model=adapter)
    assert float((ours - logits).abs().max()) > 1e-2


def encodes_each_as_alone(adapter: Adapter, shown: Sequence[Media]) -> None:
    together = adapter.prepare(shown, QUESTION)
    with torch.inference_mode():
        features = adapter.encode(together).features
        alone = [adapter.encode(adapter.prepare(one, QUESTION)).features for one in shown]
        parts = [adapter.encode(adapter.part(together, n)).features for n in range(len(shown))]
    close(features, torch.cat(alone), model=adapter)
    close(features, torch.cat(parts), model=adapter)


def signals_of_each_are_as_alone(adapter: Adapter, shown: Sequence[Media]) -> None:
    """Signals of the tower follow the tokens of their own picture or video."""
    for stage in (ProbeReceived(), ProbeSimilarity(), ProbeSimilarity(keys=False)):
        together, *alone = [
            decoded(adapter, adapter.prepare(media, QUESTION), plan_of(stage))[0]
            for media in (shown, *shown)
        ]
        scores = [trace.records[0].decision.scores for trace in (together, *alone)]
        close(scores[0], torch.cat(scores[1:]), model=adapter)
        assert float(scores[0].std()) > 1e-4


def carried_tokens_answer_alike(adapter: Adapter, shown: Media | Sequence[Media]) -> None:
    """Tokens that no tower of the run made give the logits of the direct run."""
    prompt, session = adapter.prepare(shown, QUESTION), family_session(adapter)
    with torch.inference_mode():
        features = adapter.encode(prompt).features
    table = TokenTable.from_layout(features.clone(), prompt.layout)
    direct, carried = [
        session.run(prompt, plan_of(), Generation(max_new_tokens=2), tokens=tokens)
        for tokens in (None, table)
    ]
    assert direct.first_logits is not None and carried.first_logits is not None
    assert torch.equal(direct.first_logits, carried.first_logits)


def save(adapter: Adapter, folder: Path) -> Path:
    for part in (adapter.model, adapter.parts.tokenizer, adapter.parts.image_processor):
        part.save_pretrained(folder)
    return folder


def words(adapter: Adapter, media: Media | Sequence[Media]) -> str:
    """The prompt with a dot for each placeholder."""
    prompt = adapter.prepare(media, QUESTION)
    tokenizer = adapter.parts.tokenizer
    text: str = tokenizer.decode(prompt.input_ids[0])
    return text.replace(tokenizer.decode(prompt.input_ids[0, prompt.visual_index[0]]), ".")
