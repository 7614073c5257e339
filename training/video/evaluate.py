"""Measures the shipped `tiny-video` through `vtc` itself: `python -m training.video.evaluate`.

1,000 questions, 200 of every category, each on a clip of its own with a seed that training never
saw; the answers are those that `vtc run` gives. A share of them is asked again with fewer frames,
with coarser frames and under METok, so that what these cost can be compared at equal tokens. A
setting that is in the results already is not measured again, so an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from training.evaluate import Outcome, prior, summarize
from training.video.clips import FRAMES, Clip, compose_clip, draw_clip
from training.video.data import TEST_SEEDS
from training.video.questions import ASKED, MAKERS, ClipQuestion
from vtc_cli.commands.job import PlanOptions, do_job
from vtc_cli.core.media import Media
from vtc_cli.engine.decode import Generation
from vtc_cli.engine.session import Session
from vtc_cli.models.support.load import LoadOptions, load_model
from vtc_cli.recipe.load import Recipe, load_recipe

RESULTS = Path(__file__).parents[1] / "results_video.json"
WORK = Path(__file__).parents[1] / "out-video"
GREY = 128
SECONDS = 0.5  # a frame
LOOKS_SEEDS = TEST_SEEDS[500_000:]
LOOKS = 200  # questions


@dataclass(frozen=True)
class Setting:
    """How a share of the questions is asked."""

    frames: int = FRAMES
    recipe: str = "full"
    budget: float | None = None
    grey: bool = False


def pooling(stride: int) -> str:
    """Return a recipe, as YAML, that pools every frame stride x stride and does nothing else.

    A pooled token stands where the token nearest to the middle of its block stood.
    """
    stage = {
        "cuts": 0,
        "key_events": 1,
        "key_frames": FRAMES,
        "key_strides": [stride, stride],
        "other_strides": [stride, stride],
        "before_pooling": False,
    }
    text = {"name": "pooling", "positions": "original", "encoder": [{"metok.event_pool": stage}]}
    return str(yaml.safe_dump(text, sort_keys=False))


QUARTER = 288.0
SETTINGS = {
    "full": Setting(),
    "grey frames": Setting(grey=True),
    "2 frames": Setting(frames=2),
    "random 288": Setting(recipe="random", budget=QUARTER),
    "pooled 2 x 2": Setting(recipe=pooling(2)),
    "METok 288": Setting(recipe="metok", budget=QUARTER),
    "4 frames": Setting(frames=4),
    "random 576": Setting(recipe="random", budget=576.0),
    "METok": Setting(recipe="metok"),
    "random 86": Setting(recipe="random", budget=86.0),
    "pooled 4 x 4": Setting(recipe=pooling(4)),
}


def exams(count: int) -> list[tuple[Clip, ClipQuestion]]:
    """Return as many questions, the same number of every category, which take turns."""
    rng, seeds = random.Random(TEST_SEEDS.start), iter(TEST_SEEDS)
    made: list[tuple[Clip, ClipQuestion]] = []
    while len(made) < count:
        clip, kind = compose_clip(next(seeds)), list(ASKED)[len(made) % len(ASKED)]
        question = ASKED[kind](clip, rng)
        if question is not None:
            made.append((clip, question))
    return made


def looks_exams(count: int) -> list[tuple[Clip, ClipQuestion]]:
    """Return as many questions of the sort that `tiny` is asked, on other clips."""
    rng = random.Random(LOOKS_SEEDS.start)
    pairs = ((clip, MAKERS["looks"](clip, rng)) for clip in map(compose_clip, LOOKS_SEEDS))
    found = ((clip, question) for clip, question in pairs if question is not None)
    return [pair for _, pair in zip(range(count), found, strict=False)]


def sampled(frames: int) -> list[int]:
    """Return the frames in the middle of as many equal parts, as `vtc run --frames` takes them."""
    return [int((part + 0.5) * FRAMES / frames) for part in range(frames)]


def media_of(clip: Clip, setting: Setting) -> Media:
    """Return a clip as `vtc` reads it from a lossless file."""
    pixels = np.stack([np.asarray(frame) for frame in draw_clip(clip)])
    chosen = sampled(setting.frames)
    pixels = np.full_like(pixels, GREY)[chosen] if setting.grey else pixels[chosen]
    times = tuple(SECONDS * frame for frame in chosen)
    return Media(pixels, times, "video", f"seed {clip.seed}", "")


def outcomes(
    session: Session, asked: list[tuple[Clip, ClipQuestion]], setting: Setting
) -> tuple[list[Outcome], float]:
    """Return the answers and the mean number of visual tokens in a layer."""
    recipe, options = _recipe(setting), PlanOptions(setting.budget or "default")
    answers: list[Outcome] = []
    tokens: list[float] = []
    for clip, question in asked:
        media = media_of(clip, setting)
        done = do_job(session, media, question.text, recipe, options, Generation())
        answers.append((question, done.trace.answer))
        tokens.append(float(np.mean(done.trace.visual_tokens)))
    return answers, float(np.mean(tokens))


def _recipe(setting: Setting) -> Recipe:
    """Return a recipe by its name or out of its own text."""
    if "\n" not in setting.recipe:
        return load_recipe(setting.recipe)
    path = WORK / "setting.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(setting.recipe)
    return load_recipe(str(path))


def measure(model: str, questions: int, share: int, results: Path, only: list[str]) -> None:
    """Measure every setting that the results do not hold yet, and write each at once."""
    session = Session(*load_model(model, LoadOptions(device="cpu")))
    whole = exams(questions)
    table: dict[str, Any] = json.loads(results.read_text()) if results.exists() else {}
    for name in [name for name in only if name not in table]:
        asked = whole if name == "full" else whole[:share]
        answers, tokens = outcomes(session, asked, SETTINGS[name])
        scores = summarize(answers)
        if name == "full":
            table["prior"] = {"scores": prior(answers)}
            looks = outcomes(session, looks_exams(LOOKS), SETTINGS[name])[0]
            scores["looks"] = summarize(looks)["looks"]
        table[name] = {"tokens": round(tokens, 1), "scores": scores}
        results.write_text(json.dumps(table, indent=1) + "\n")
        right = 100 * scores["all"]["accuracy"]
        print(f"{name}: {tokens:.1f} tokens a layer, {right:.1f} % right", flush=True)


def markdown(table: dict[str, Any]) -> str:
    """Return results as a Markdown table of percentages, one row a setting."""
    kinds = (*ASKED, "all")
    lines = [f"| setting | tokens | n | {' | '.join(kinds)} |", "|---" * (len(kinds) + 3) + "|"]
    for name, row in table.items():
        cells = [f"{100 * row['scores'][kind]['accuracy']:.1f}" for kind in kinds]
        count = row["scores"]["all"]["n"]
        lines.append(f"| {name} | {row.get('tokens', '-')} | {count} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table and write the results."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model", default="tiny-video")
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--share", type=int, default=150, help="questions of the other settings")
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    measure(options.model, options.questions, options.share, options.results, options.settings)
    print(markdown(json.loads(options.results.read_text())))


if __name__ == "__main__":
    main()
