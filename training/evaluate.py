"""Measures the shipped checkpoint: `python -m training.evaluate`.

Two sets: 2,000 questions about generated scenes with seeds that training never saw, and the
easy-VQA test split. Both with all 576 visual tokens, with random subsets of the projected
features at their own position ids, and with none.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from training.answering import answer_rows, visual_tokens
from training.data import TEST_SEEDS
from training.easy_data import read_split
from training.export import SHIPPED
from training.questions import CATEGORIES, MAKERS, Question, is_right
from training.scenes import compose, draw
from training.statistics import Score, score
from training.tokenizer import build_tokenizer

RESULTS = Path(__file__).parent / "results.json"
KEPT = (576, 192, 128, 64, 0)
TEST_QUESTIONS = 2000
BATCH = 16


@dataclass(frozen=True)
class Exam:
    """One picture and the questions on it; `seed` fixes its random subset of tokens."""

    seed: int
    picture: Image.Image
    questions: tuple[Question, ...]


def generated_exams(questions: int) -> Iterator[Exam]:
    """Yield as many exams of one question each, the same number from every category."""
    rng, seeds = random.Random(TEST_SEEDS.start), iter(TEST_SEEDS)
    for category in CATEGORIES:
        left = questions // len(CATEGORIES)
        while left:
            scene = compose(next(seeds))
            question = MAKERS[category](scene, rng)
            if question is not None:
                left -= 1
                yield Exam(scene.seed, draw(scene), (question,))


def easy_exams() -> Iterator[Exam]:
    """Yield the easy-VQA test pictures with all their questions."""
    for number, source in enumerate(read_split("test")):
        pairs = tuple(Question(text, answer, "easy-VQA") for text, answer in source.pairs)
        yield Exam(number, source.load(), pairs)


def batches(exams: list[Exam]) -> Iterator[list[Exam]]:
    """Yield the exams in batches."""
    for start in range(0, len(exams), BATCH):
        yield exams[start : start + BATCH]


def chosen_tokens(exam: Exam, kept: int) -> Tensor:
    """Return which visual tokens stay: a random subset in order, fixed by the exam's seed."""
    generator = torch.Generator().manual_seed(exam.seed)
    return torch.randperm(576, generator=generator)[:kept].sort().values


Outcome = tuple[Question, str]


def run_exams(
    model: LlavaForConditionalGeneration, exams: list[Exam], kept: tuple[int, ...]
) -> dict[int, list[Outcome]]:
    """Answer all exams at every number of visual tokens; tower features are computed once."""
    tokenizer = build_tokenizer()
    outcomes: dict[int, list[Outcome]] = {count: [] for count in kept}
    for batch in batches(exams):
        sight = visual_tokens(model, [exam.picture for exam in batch])
        rows = torch.tensor([row for row, exam in enumerate(batch) for _ in exam.questions])
        questions = [question for exam in batch for question in exam.questions]
        for count in kept:
            places = torch.stack([chosen_tokens(exam, count) for exam in batch])
            texts = [question.text for question in questions]
            answers = answer_rows(model, tokenizer, sight, places, rows, texts)
            outcomes[count] += zip(questions, answers, strict=True)
    return outcomes


def summarize(outcomes: list[Outcome]) -> dict[str, Score]:
    """Return the score of every category and of all together."""
    table: dict[str, list[bool]] = {}
    for question, answer in outcomes:
        right = is_right(question, answer)
        table.setdefault(question.category, []).append(right)
        table.setdefault("all", []).append(right)
    return {category: score(values) for category, values in table.items()}


def prior(outcomes: list[Outcome]) -> dict[str, Score]:
    """Return the score of answering every question of a category with its commonest answer."""
    answers: dict[str, list[str]] = {}
    for question, _ in outcomes:
        answers.setdefault(question.category, []).append(question.answer)
    common = {kind: Counter(values).most_common(1)[0][0] for kind, values in answers.items()}
    return summarize([(question, common[question.category]) for question, _ in outcomes])


def evaluate(
    folder: Path, kept: tuple[int, ...], questions: int, easy_share: int
) -> dict[str, dict[str, Score]]:
    """Return the scores of both sets at every number of tokens, and of the prior."""
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    generated = run_exams(model, list(generated_exams(questions)), kept)
    easy = run_exams(model, list(easy_exams())[::easy_share], kept)
    results = {label(count): summarize(generated[count]) | _easy(easy[count]) for count in kept}
    some = kept[0]
    easy_prior = {"easy-VQA": prior(easy[some])["easy-VQA"]}
    return results | {"prior": prior(generated[some]) | easy_prior}


def label(kept: int) -> str:
    """Name a setting by the number of visual tokens that it keeps."""
    return {576: "576", 0: "none"}.get(kept, f"random {kept}")


def _easy(outcomes: list[Outcome]) -> dict[str, Score]:
    """Return the score of the easy-VQA split under its name."""
    return {"easy-VQA": summarize(outcomes)["easy-VQA"]}


def table(results: dict[str, dict[str, Score]]) -> str:
    """Return the results as a Markdown table of percentages, one column a setting."""
    settings = list(results)
    lines = ["| category | n | " + " | ".join(settings) + " |", "|---" * (len(settings) + 2) + "|"]
    for category in (*CATEGORIES, "all", "easy-VQA"):
        scores = [results[setting][category] for setting in settings]
        cells = [f"{100 * value['accuracy']:.1f}" for value in scores]
        lines.append(f"| {category} | {scores[0]['n']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Evaluate, print the table and write the results."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--folder", type=Path, default=SHIPPED)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--kept", type=int, nargs="+", default=list(KEPT))
    parser.add_argument("--questions", type=int, default=TEST_QUESTIONS)
    parser.add_argument("--easy-every", type=int, default=1, help="use every n-th easy-VQA picture")
    options = parser.parse_args()
    results = evaluate(options.folder, tuple(options.kept), options.questions, options.easy_every)
    print(table(results))
    options.results.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
