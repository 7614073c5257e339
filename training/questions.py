"""Questions and answers about a scene, each category with several wordings.

Every maker takes a scene and a random source and returns a question, or None where the scene
cannot answer such a question without ambiguity.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from training import templates
from training.scenes import COLOUR_NAMES, SHAPES, Item, Scene
from training.templates import CELLS, MARK, PLURALS


@dataclass(frozen=True)
class Question:
    """A question with its answer, category, and the item (None: absent) at every mark."""

    marked: str
    answer: str
    category: str
    mentions: tuple[Item | None, ...] = ()

    @property
    def text(self) -> str:
        """The question as a model reads it."""
        return self.marked.replace(MARK, "")


Maker = Callable[[Scene, random.Random], Question | None]


def _fill(rng: random.Random, wordings: tuple[str, ...], **words: str) -> str:
    """Choose a wording, put in the words and vary spelling and the closing mark."""
    picture = rng.choice(("image", "image", "picture", "picture", "photo"))
    text = rng.choice(wordings).format(picture=picture, **words)
    if rng.random() < 0.15:
        text = text.replace("color", "colour")
    if rng.random() < 0.1:
        text = text.replace("gray", "grey")
    return text.rstrip("?.") if rng.random() < 0.12 else text


def unique_names(scene: Scene, item: Item) -> list[str]:
    """Return the names by which only this item can be meant, e.g. "red shape", "circle"."""
    names = [f"{item.colour} shape", f"{item.colour} {item.shape}", f"{item.colour} object"]
    if sum(other.shape == item.shape for other in scene.items) == 1:
        names += [item.shape]
    return names


def placed(cell: int) -> str:
    """Return the phrase for a cell, e.g. "at the top left" or "in the center"."""
    return f"in the {CELLS[cell]}" if CELLS[cell] == "center" else f"at the {CELLS[cell]}"


def color_question(scene: Scene, rng: random.Random) -> Question | None:
    """Ask for the colour of an item named by its shape, its place or as the only one."""
    item = rng.choice(scene.items)
    things = [f"shape {placed(item.cell)}"]
    if sum(other.shape == item.shape for other in scene.items) == 1:
        things += [item.shape] * 3
    if len(scene.items) == 1:
        things += ["shape"] * 2
    text = _fill(rng, templates.COLOR, thing=rng.choice(things))
    return Question(text, item.colour, "color", (item,))


def shape_question(scene: Scene, rng: random.Random) -> Question | None:
    """Ask for the shape of an item named by its colour, its place or as the only one."""
    item, choice = rng.choice(scene.items), rng.random()
    if len(scene.items) == 1 and choice < 0.5:
        return Question(_fill(rng, templates.SHAPE_ALONE), item.shape, "shape")
    if choice < 0.25:
        text = _fill(rng, templates.SHAPE_PLACED, place=placed(item.cell))
    else:
        text = _fill(rng, templates.SHAPE, color=item.colour)
    return Question(text, item.shape, "shape", (item,))


def count_question(scene: Scene, rng: random.Random) -> Question | None:
    """Ask for the number of all items or of those of one shape."""
    if rng.random() < 0.65:
        text = _fill(rng, templates.COUNT, things=rng.choice(("shapes", "shapes", "objects")))
        return Question(text, str(len(scene.items)), "count")
    shape = rng.choice((rng.choice(SHAPES), rng.choice(scene.items).shape))
    count = sum(item.shape == shape for item in scene.items)
    text = _fill(rng, templates.COUNT, things=PLURALS[shape])
    return Question(text, str(count), "count")


def _thing_present(scene: Scene, rng: random.Random) -> tuple[str, Item | None]:
    """Name something that the scene shows."""
    item = rng.choice(scene.items)
    name = rng.choice((f"{item.colour} shape", item.shape, f"{item.colour} {item.shape}"))
    return name, item


def _thing_absent(scene: Scene, rng: random.Random) -> tuple[str, Item | None]:
    """Name something that the scene does not show, often near to what it shows."""
    item = rng.choice(scene.items)
    colours = [name for name in COLOUR_NAMES if all(i.colour != name for i in scene.items)]
    shapes = [name for name in SHAPES if all(i.shape != name for i in scene.items)]
    other = rng.choice([name for name in SHAPES if name != item.shape])
    names = [f"{rng.choice(colours)} shape", f"{item.colour} {other}"]
    names += [rng.choice(shapes)] if shapes else [f"{rng.choice(colours)} {item.shape}"]
    return rng.choice(names), None


def presence_question(scene: Scene, rng: random.Random) -> Question | None:
    """Ask whether something is there, in the affirmative or the negative."""
    if rng.random() < 0.08:
        return _digit_presence(scene, rng)
    present = rng.random() < 0.5
    bare, item = _thing_present(scene, rng) if present else _thing_absent(scene, rng)
    negated = rng.random() < 0.4
    wordings = templates.NEGATED if negated else templates.AFFIRMED
    text = _fill(rng, wordings, thing=f"a {bare}", bare=bare)
    return Question(text, "yes" if present != negated else "no", "presence", (item,))


def _digit_presence(scene: Scene, rng: random.Random) -> Question:
    """Ask whether there is a digit."""
    text = _fill(rng, templates.AFFIRMED, thing="a digit", bare="digit").replace(MARK, "")
    return Question(text, "yes" if scene.digit else "no", "presence")


def relation_question(scene: Scene, rng: random.Random) -> Question | None:
    """Ask how two items lie to each other, along an axis on which their cells differ."""
    if len(scene.items) < 2:
        return None
    one, two = rng.sample(scene.items, 2)
    steps = {"x": two.cell % 3 - one.cell % 3, "y": two.cell // 3 - one.cell // 3}
    axis = rng.choice([name for name, step in steps.items() if step])
    sides = ("left", "right") if axis == "x" else ("above", "below")
    truth = sides[0] if steps[axis] > 0 else sides[1]
    names = {
        "one": rng.choice(unique_names(scene, one)),
        "two": rng.choice(unique_names(scene, two)),
    }
    if rng.random() < 0.25:
        choice = templates.RELATION_CHOICES[axis]
        text, answer = _fill(rng, templates.RELATION_CHOICE, choice=choice, **names), truth
    else:
        relation = rng.choice(sides)
        phrase = rng.choice(templates.RELATION_PHRASES[relation])
        text = _fill(rng, templates.RELATION, relation=phrase, **names)
        answer = "yes" if relation == truth else "no"
    return Question(text, answer, "relation", (one, two))


def digit_question(scene: Scene, rng: random.Random) -> Question | None:
    """Ask for the digit."""
    if scene.digit is None:
        return None
    return Question(_fill(rng, templates.DIGIT), scene.digit.value, "digit")


def place_question(scene: Scene, rng: random.Random) -> Question | None:
    """Ask in which of the nine cells an item or the digit lies."""
    if scene.digit and rng.random() < 0.15:
        text = _fill(rng, templates.PLACE, thing="digit").replace(MARK, "")
        return Question(text, CELLS[scene.digit.cell], "place")
    item = rng.choice(scene.items)
    text = _fill(rng, templates.PLACE, thing=rng.choice(unique_names(scene, item)))
    return Question(text, CELLS[item.cell], "place", (item,))


def describe(scene: Scene) -> str:
    """Return the one-sentence description: items in reading order, then the digit."""
    parts = [f"a {item.colour} {item.shape} {placed(item.cell)}" for item in scene.items]
    parts += [f"the digit {scene.digit.value}"] if scene.digit else []
    if len(parts) == 1:
        return f"{parts[0]}."
    return f"{', '.join(parts[:-1])} and {parts[-1]}."


def description_question(scene: Scene, rng: random.Random) -> Question | None:
    """Ask for the description."""
    return Question(
        _fill(rng, (*templates.DESCRIPTION, templates.DETAILED)), describe(scene), "description"
    )


MAKERS: dict[str, Maker] = {
    "color": color_question,
    "shape": shape_question,
    "count": count_question,
    "presence": presence_question,
    "relation": relation_question,
    "digit": digit_question,
    "place": place_question,
    "description": description_question,
}
CATEGORIES = tuple(MAKERS)


def named_things(sentence: str) -> frozenset[str]:
    """Return the (colour, shape) pairs and the digit that a description names."""
    words = templates.split_words(sentence)
    pairs = pairwise(words)
    things = {f"{one} {two}" for one, two in pairs if one in COLOUR_NAMES and two in SHAPES}
    return frozenset(things | {word for word in words if word.isdigit()})


def is_right(question: Question, answer: str) -> bool:
    """Judge an answer: descriptions by the things they name, all others word by word."""
    if question.category == "description":
        return named_things(answer) == named_things(question.answer)
    return templates.split_words(answer.rstrip(". ")) == templates.split_words(question.answer)
