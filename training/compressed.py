"""Accuracy of the shipped checkpoint under a recipe: `python -m training.compressed`.

The generated test set of `training.evaluate`, a share of every category, answered one question at a
time through `vtc` itself, as a user would.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from training.evaluate import Exam, Outcome, easy_exams, generated_exams, summarize, table
from training.statistics import Score
from vtc_cli.commands.job import PlanOptions, do_job
from vtc_cli.core.media import Media
from vtc_cli.engine.decode import Generation
from vtc_cli.engine.session import Session
from vtc_cli.models.support.load import LoadOptions, load_model
from vtc_cli.recipe.load import Recipe, load_recipe

RESULTS = Path(__file__).parent / "results_compressed.json"


def outcomes(
    session: Session, exams: list[Exam], recipe: Recipe, options: PlanOptions
) -> tuple[list[Outcome], list[float]]:
    """Answers to all questions, and the layer average that each one was answered with."""
    answers: list[Outcome] = []
    averages: list[float] = []
    for exam in exams:
        pixels = np.asarray(exam.picture.convert("RGB"))[None]
        media = Media(pixels, (0.0,), "image", f"seed {exam.seed}", "")
        for question in exam.questions:
            done = do_job(session, media, question.text, recipe, options, Generation())
            answers.append((question, done.trace.answer))
            averages.append(float(np.mean(done.trace.visual_tokens)))
    return answers, averages


def main() -> None:
    """Evaluate, print the table and write the results."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--recipe", default="mustdrop")
    parser.add_argument("--budgets", type=float, nargs="+", default=[192.0, 128.0, 64.0])
    parser.add_argument("--questions", type=int, default=2000)
    parser.add_argument("--easy-every", type=int, default=20, help="use every n-th picture")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    session = Session(*load_model("tiny", LoadOptions()))
    exams = [*generated_exams(arguments.questions), *list(easy_exams())[:: arguments.easy_every]]
    recipe, results = load_recipe(arguments.recipe), dict[str, dict[str, Score]]()
    for budget in arguments.budgets:
        answers, averages = outcomes(session, exams, recipe, PlanOptions(budget))
        print(f"{budget:g}: layer average {min(averages):.2f} .. {max(averages):.2f}", flush=True)
        results[f"{budget:g}"] = summarize_both(answers)
        arguments.results.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


def summarize_both(answers: list[Outcome]) -> dict[str, Score]:
    """Scores by category; `all` counts the generated questions only."""
    generated = [pair for pair in answers if pair[0].category != "easy-VQA"]
    easy = [pair for pair in answers if pair[0].category == "easy-VQA"]
    return summarize(generated) | {"easy-VQA": summarize(easy)["easy-VQA"]}


if __name__ == "__main__":
    main()
