"""Whether a prompt and its answer fit into the positions that the decoder was made for."""

from __future__ import annotations

from vtc_cli.core.errors import UsageError
from vtc_cli.engine.reading import Request
from vtc_cli.engine.sequence import Entry
from vtc_cli.models.support.base import Adapter


def check_prompt(adapter: Adapter, request: Request, anew: bool) -> None:
    """Refuse a prompt that is too long before anything of it is computed.

    Every decoder here has rotary positions, so the bound is where training ended, not where the
    arithmetic fails: behind it answers are noise without a word of warning. A plan that counts
    positions anew behind its encoder stages may bring a longer prompt within the bound; then only
    the text is counted here and `check_entry` counts the rest.

    Args:
        adapter: the model.
        request: prompt, plan and answer.
        anew: whether positions are counted at the decoder's input.

    Raises:
        UsageError: the prompt or the answer lies beyond the bound.
    """
    prompt = request.prompt
    shortened = bool(request.plan.encoder) or request.tokens is not None
    visual = int(prompt.visual_index.shape[0])
    text = prompt.prompt_tokens - visual
    _check(adapter, request, text if anew and shortened else adapter.positions_of(prompt))


def check_entry(adapter: Adapter, request: Request, entry: Entry, anew: bool) -> None:
    """Refuse a prompt that the encoder stages left too long.

    Raises:
        UsageError: as for `check_prompt`.
    """
    if anew:
        _check(adapter, request, len(entry.sequence))


def _check(adapter: Adapter, request: Request, positions: int) -> None:
    """Compare the positions of a prompt, its answer and further turns with the bound."""
    most = adapter.context
    if most is None:
        return
    answer = request.generation.tokens
    turns = sum(int(adapter.turn_ids(text, -1).shape[1]) + answer for text in request.turns)
    if positions + answer + turns <= most:
        return
    further = f", {len(request.turns)} further turns of {turns}" if turns else ""
    raise UsageError(
        f"a prompt of {positions:,} tokens and an answer of up to {answer:,}{further}: "
        f"{positions + answer + turns:,}",
        where=adapter.source,
        allowed=f"{most:,}, the context of the model (max_position_embeddings and rope scaling)",
        hint="a shorter question, fewer --frames, a smaller --max-new-tokens, or a recipe that "
        "shortens the prompt before the decoder and counts positions there",
    )
