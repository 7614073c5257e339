"""Recipe files: every fault at once, each with its line, what is allowed and the nearest name."""

from __future__ import annotations

from pathlib import Path

import pytest

from vtc_cli.core.discover import recipe_files
from vtc_cli.core.errors import RecipeError, UsageError
from vtc_cli.recipe.load import load_recipe

HEAD = "name: x\npaper: none\n"


def faults(tmp_path: Path, text: str) -> list[tuple[int, str]]:
    """(line, the whole text) of each fault of a recipe."""
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    return [
        (int((str(fault.where) + ":1").split("yaml:")[1].split(":")[0]), str(fault))
        for fault in caught.value.faults
    ]


def test_every_shipped_recipe_is_sound() -> None:
    names = list(recipe_files())
    assert {"full", "mustdrop"} <= set(names)
    for name in names:
        assert load_recipe(name).file.name == name


def test_all_faults_come_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = HEAD + (
        "budgit: 3\n"
        "prefill:\n"
        "  - mustdrop.dual_atention: {}\n"
        "  - mustdrop.dual_attention: {layers: [3, x], global_treshold: 1}\n"
        "encoder:\n"
        "  - mustdrop.key_tokens: {protect_ratio: 1.5}\n"
    )
    found = faults(tmp_path, text)
    assert [line for line, _ in found] == sorted(line for line, _ in found)
    joined = "\n".join(text for _, text in found)
    assert len(found) == 5
    assert "mustdrop.dual_attention" in joined
    assert "global_threshold" in joined
    assert {line for line, _ in found} == {3, 5, 6, 8}


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("window: true", 4),
        ("window: '3'", 4),
        ("window: 2.5", 4),
        ("window: 1", 4),
        ("threshold: 1.1", 4),
        ("threshold: high", 4),
        ("fidelity: exact", 4),
    ],
)
def test_a_wrong_value_is_a_fault_of_its_line(tmp_path: Path, value: str, line: int) -> None:
    text = f"{HEAD}encoder:\n  - mustdrop.spatial_merge: {{{value}}}\n"
    (only,) = faults(tmp_path, text)
    assert only[0] == line
    assert value.split(":")[0] in only[1]


FILES = {
    "syntax": "name: [x\n",
    "list on top": "- a\n",
    "empty": "",
    "duplicate key": HEAD + "name: y\n",
    "anchor": HEAD + "description: &a text\n",
    "tag": HEAD + "description: !!python/name:os.system x\n",
    "two stages in one item": HEAD + "prefill:\n  - {a.b: {}, c.d: {}}\n",
    "wrong phase": HEAD + "encoder:\n  - mustdrop.dual_attention: {}\n",
    "bad budget": HEAD + "budgets: {many: {}}\n",
    "budget for a stage that is not there": HEAD + "budgets: {64: {dual_attention: {}}}\n",
    "layer beyond the reference": HEAD
    + "reference: {llm_layers: 8, vision_layers: 4}\nprefill:\n"
    + "  - mustdrop.dual_attention: {layers: [3, 9]}\n",
    "layers that do not increase": HEAD
    + "prefill:\n  - mustdrop.dual_attention: {layers: [5, 5]}\n",
    "too deep": HEAD + "source: " + "[" * 40 + "]" * 40 + "\n",
    "too large": HEAD + "description: " + "x" * 300_000 + "\n",
    "not text": "name: \x00\n",
}


@pytest.mark.parametrize("name", FILES)
def test_an_unusable_file_is_one_clear_error(tmp_path: Path, name: str) -> None:
    found = faults(tmp_path, FILES[name])
    assert found
    assert all(line >= 1 for line, _ in found)


def test_unknown_and_missing_recipes_name_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as unknown:
        load_recipe("mustdorp")
    assert unknown.value.hint == "mustdrop"
    with pytest.raises(RecipeError) as missing:
        load_recipe(tmp_path / "mustdrop.yaml")
    assert "mustdrop" in str(missing.value.faults[0].hint)


def test_a_single_layer_may_stand_without_brackets(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(f"{HEAD}prefill:\n  - mustdrop.dual_attention: {{layers: 3}}\n")
    (use,) = load_recipe(path).stages
    assert use.values["layers"] == (3,)
