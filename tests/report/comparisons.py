"""Rows of comparisons that no model made: verdicts and figures are chosen by the tests."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from vtc_cli.report.compare.rows import (
    HeadLine,
    ItemLine,
    Pass,
    PassFlops,
    PassTime,
    PassTokens,
    PictureFacts,
    RecipeUse,
    Rows,
    Source,
    Wishes,
)
from vtc_cli.report.result import (
    FidelityBlock,
    FirstTokenShares,
    MemoryBlock,
    ModelBlock,
)

Verdicts = Mapping[tuple[str, str], Sequence[bool]]
NO_PICTURE = PictureFacts(
    path="nowhere.png",
    sha256="",
    kind="image",
    width=40,
    height=20,
    frames=1,
    grid=(1, 2, 4),
    box=(0.0, 0.0, 40.0, 20.0),
)


def head(
    recipes: Sequence[str],
    budgets: Sequence[str],
    baselines: Sequence[str] = ("random",),
    weights: str = "trained",
) -> HeadLine:
    model = ModelBlock(
        id="toy",
        family="toy",
        weights=weights,  # type: ignore[arg-type]
        dtype="float32",
        device="cpu",
        attention="sdpa",
        layers=2,
        vision_layers=2,
    )
    uses = [
        RecipeUse(name=name, path=f"{name}.yaml", sha256="0", baseline=name in baselines)
        for name in [*recipes, *baselines]
    ]
    wishes = Wishes(
        recipes=uses,
        budgets=list(budgets),
        fidelity=None,
        exact_layers=False,
        max_new_tokens=8,
        seed=0,
        source=Source(path="items.jsonl", sha256="1", items=0),
        weights="2",
        model=model,
        environment={"vtc": "0"},
    )
    return HeadLine(created="now", argv=[], match="normalised", wishes=wishes)


def a_pass(
    item: str,
    recipe: str,
    budget: str,
    answer: str,
    *,
    tokens: float = 4.0,
    cost: float = 0.5,
    kl: float | None = 0.1,
    ttft: float = 10.0,
    mask: str | None = None,
    cache_equivalent: float | None = None,
) -> Pass:
    """A pass over 8 tokens; `cost` is its share of the full prefill's 100,000 operations."""
    full = recipe == "full"
    asked = float(budget) if budget.isdecimal() else None
    close = FidelityBlock(
        kl_first_token=kl, top1_agree=True, answer_nll_delta=0.0, exact_match=answer == "yes"
    )
    return Pass(
        item=item,
        recipe=recipe,
        budget=budget,
        answer=answer,
        answer_tokens=1,
        tokens=PassTokens(
            original=8,
            requested=asked,
            entering=8,
            layer_average=8.0 if full else tokens,
            leaving_average=tokens,
            final=round(tokens),
            cache_equivalent=cache_equivalent,
        ),
        kv_bytes=100 if full else 40,
        kv_full_bytes=100,
        flops=PassFlops(
            vision=50_000,
            projector=0,
            prefill=100_000 if full else round(100_000 * cost) - 1000,
            decode_step=1000,
            compression=0 if full else 1000,
            full_prefill=100_000,
            full_first_token=150_000,
        ),
        time_ms=PassTime(
            ttft=20.0 if full else ttft,
            vision=4.0,
            prefill=6.0,
            compression=0.0,
            decode_per_token=1.0,
            first_token_shares=FirstTokenShares(vision=0.7, compression=0.0, prefill=0.3),
        ),
        memory=MemoryBlock(peak_bytes=1_000_000, kind="rss"),
        fidelity=None if full else close,
        mask=mask,
        warnings=[],
    )


def judged(
    verdicts: Verdicts,
    recipes: Sequence[str],
    budgets: Sequence[str],
    baselines: Sequence[str] = ("random",),
    weights: str = "trained",
    categories: Sequence[str | None] = (None,),
    **figures: float,
) -> Rows:
    """Rows whose passes are right or wrong as said; the full model has the key ("full", "")."""
    rows = Rows(head(recipes, budgets, baselines, weights))
    count = len(verdicts["full", ""])
    for number in range(count):
        name, kind = f"i{number}", categories[number % len(categories)]
        rows.take(an_item(name, number, category=kind))
        for (recipe, budget), right in verdicts.items():
            answer = "yes" if right[number] else "no"
            rows.take(a_pass(name, recipe, budget, answer, **figures))  # type: ignore[arg-type]
    return rows


def an_item(
    name: str,
    number: int,
    *,
    question: str = "is it?",
    answer: str | None = "yes",
    category: str | None = None,
    picture: PictureFacts = NO_PICTURE,
) -> ItemLine:
    own = picture.model_copy(update={"sha256": picture.sha256 or f"{number:064d}"})
    return ItemLine(
        id=name,
        number=number,
        question=question,
        answer=answer,
        category=category,
        match=None,
        picture=own,
    )


def mask_of(fates: Sequence[int]) -> str:
    """Two bits each, the first in the lowest: written out bit by bit."""
    bits = "".join(f"{fate:02b}"[::-1] for fate in fates)
    bits += "0" * (-len(bits) % 8)
    bytes_ = [int(bits[at : at + 8][::-1], 2) for at in range(0, len(bits), 8)]
    return base64.b64encode(bytes(bytes_)).decode()


def a_picture(path: Path, colour: tuple[int, int, int]) -> PictureFacts:
    """A written picture of 40 x 20 pixels in one colour."""
    import hashlib

    Image.fromarray(np.full((20, 40, 3), colour, dtype=np.uint8)).save(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return NO_PICTURE.model_copy(update={"path": str(path), "sha256": digest})
