"""What each fault of a recipe file says, and on which line it says it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vtc_cli.core import discover
from vtc_cli.core.errors import RecipeError
from vtc_cli.recipe.load import load_recipe

HEAD = "name: x\npaper: none\n"  # lines 1 and 2
MERGE = HEAD + "encoder:\n  - mustdrop.spatial_merge: {%s}\n"  # values on line 4
FILTER = HEAD + "prefill:\n  - mustdrop.dual_attention: {%s}\n"

# text of the file, then the line and the words of its only fault
ONE_FAULT: dict[str, tuple[str, int, str]] = {
    "syntax": ("name: x\nencoder: [a\n", 3, "not YAML"),
    "empty": ("", 1, "not a mapping of keys"),
    "a list": ("- a\n", 1, "not a mapping of keys"),
    "unknown key": (HEAD + "budgit: {}\n", 3, "try: budgets"),
    "unknown key below": (HEAD + "reference: {llm_layer: 3}\n", 3, "try: llm_layers"),
    "key twice": (HEAD + "name: y\n", 3, "the key 'name' stands twice (see line 1)"),
    "value twice": (MERGE % "window: 3, window: 4", 4, "the key 'window' stands twice"),
    "number as key": (HEAD + "3: x\n", 3, "the key 3 (int); allowed: a text as key"),
    "nothing as key": (HEAD + "~: x\n", 3, "the key None (NoneType); allowed: a text as key"),
    "list as key": (HEAD + "[a]: x\n", 3, "a key that is a list"),
    "anchor": (HEAD + "description: &a text\n", 3, "the anchor &a"),
    "alias": (HEAD + "description: *a\n", 3, "the alias *a"),
    "tag": (HEAD + "paper2: !!python/name:os.system x\n", 3, "the tag tag:yaml.org,2002:python"),
    "second document": (HEAD + "---\nname: y\n", 3, "a second document begins"),
    "deep list": (HEAD + "source: " + "[" * 40 + "]" * 40 + "\n", 3, "nested too deeply"),
    "huge number": (MERGE % ("window: " + "9" * 5000), 4, "cannot be read"),
    "huge number in hexadecimal": (MERGE % ("window: 0x" + "f" * 6000), 4, "at most 10000000"),
    "2^64": (MERGE % "window: 18446744073709551616", 4, "at most 10000000"),
    "beyond float32": (MERGE % "threshold: 1.0e-320", 4, "or from 1e-30 to 1e+30"),
    "2^64 as budget": (HEAD + "budgets: {18446744073709551616: {}}\n", 3, "at most 10000000"),
    "no such letter": (HEAD + 'description: "\\U00110000"\n', 1, "not YAML"),
    "no letter at all": (HEAD + 'description: "\\Uffffffff"\n', 1, "not YAML"),
    "too many stages": (
        HEAD + "decode:\n" + "  - a\n" * 257,
        1,
        "257 stages; allowed: at most 256",
    ),
    "too many values": (HEAD + "source: [" + "1," * 40_000 + "]\n", 3, "too many values"),
    "number as name": ("name: 3\n", 1, "name is 3 (int)"),
    "unknown stage": (HEAD + "encoder:\n  - mustdrop.spatial_merg: {}\n", 4, "spatial_merge"),
    "unknown module": (HEAD + "encoder:\n  - mustdorp.key_tokens: {}\n", 4, "mustdrop.key_tokens"),
    "path as stage": (HEAD + "encoder:\n  - ../x: {}\n", 4, "no stage is called '../x'"),
    "which of several": (HEAD + "encoder:\n  - mustdrop: {}\n", 4, "no stage is called 'mustdrop'"),
    "two in one item": (HEAD + "prefill:\n  - {a.b: {}, c.d: {}}\n", 4, "one stage an entry"),
    "wrong phase": (HEAD + "encoder:\n  - mustdrop.dual_attention: {}\n", 4, "move it to prefill:"),
    "unknown value": (MERGE % "windw: 3", 4, "try: window"),
    "truth for a number": (MERGE % "window: true", 4, "window is true; allowed: a valid integer"),
    "text for a number": (MERGE % "window: '3'", 4, 'window is "3"'),
    "YAML's own text": (MERGE % "threshold: 1e-3", 4, "try: write 0.001"),
    "not finite": (MERGE % "threshold: .nan", 4, "a finite number -1..1"),
    "below the range": (MERGE % "window: 1", 4, "allowed: at least 2"),
    "above the range": (MERGE % "threshold: 1.01", 4, "allowed: -1..1"),
    "fidelity of one stage": (MERGE % "fidelity: official", 4, "at the top of the recipe"),
    "truth as layer": (FILTER % "layers: [true]", 4, "layers is [true]"),
    "no layer": (FILTER % "layers: []", 4, "no layer is named"),
    "equal layers": (FILTER % "layers: [5, 5]", 4, "the layers 5, 5 do not increase"),
    "too deep a layer": (FILTER % "layers: [3, 32]", 4, "layer 32 does not exist in 32 layers"),
    "budget of no number": (HEAD + "budgets: {many: {}}\n", 3, "budgets.many is 'many'"),
    "override of nothing": (HEAD + "budgets:\n  64: {carve: {}}\n", 4, "no stage of this recipe"),
    "override of a wrong value": (
        MERGE % "" + "budgets:\n  64: {spatial_merge: {window: 0}}\n",
        6,
        "window is 0; allowed: at least 2",
    ),
    "unpublished default": (
        HEAD + "fidelity: official\ndefault_budget: 64\n",
        4,
        "no published settings for the default budget 64",
    ),
}


def fault_texts(path: Path) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    return [str(fault) for fault in caught.value.faults]


@pytest.mark.parametrize("name", ONE_FAULT)
def test_a_fault_is_told_once_on_its_line_and_in_clear_words(tmp_path: Path, name: str) -> None:
    text, line, words = ONE_FAULT[name]
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    (told,) = fault_texts(path)
    assert told.startswith(f"where: {path}:{line}; ")
    assert words in told


def test_the_name_is_that_of_the_file_unless_the_recipe_gives_another(tmp_path: Path) -> None:
    (tmp_path / "evens.v2.yaml").write_text("prefill: []\n")
    assert load_recipe(tmp_path / "evens.v2.yaml").file.name == "evens.v2"
    (tmp_path / "evens.yaml").write_text("name: odds\n")
    assert load_recipe(tmp_path / "evens.yaml").file.name == "odds"
    path = tmp_path / "my recipe.yaml"
    path.write_text("paper: none\n")
    (told,) = fault_texts(path)
    assert told.startswith(f"where: {path}:1; found: no name, and that of the file, 'my recipe',")


def test_an_anchor_and_its_alias_are_two_faults(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(HEAD + "description: &a t\nsource: {a: *a}\n")
    first, second = fault_texts(path)
    assert f"{path}:3; found: the anchor &a" in first
    assert f"{path}:4; found: the alias *a" in second


@pytest.mark.parametrize(
    ("raw", "line"), [(HEAD.encode("utf-16"), 1), (HEAD.encode() + b"description: \xe9\n", 3)]
)
def test_text_in_another_encoding_is_refused(tmp_path: Path, raw: bytes, line: int) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(raw)
    assert fault_texts(path) == [f"where: {path}:{line}; found: not UTF-8 text; allowed: UTF-8"]


def test_a_file_above_the_bound_is_not_parsed(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(HEAD + "description: " + "x" * 300_000 + "\n")
    assert fault_texts(path) == [
        f"where: {path}; found: the file is too large for a recipe; allowed: at most 256 kB"
    ]


@pytest.mark.parametrize("name", ["none.yaml", "a\0b.yaml", "x" * 5000 + ".yaml"])
def test_a_file_that_cannot_be_there_is_missing(tmp_path: Path, name: str) -> None:
    (told,) = fault_texts(tmp_path / name)
    assert "there is no such file" in told


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").mkdir()
    (told,) = fault_texts(tmp_path / "x.yaml")
    assert "Is a directory" in told


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + HEAD.encode())
    assert load_recipe(path).file.name == "x"


def test_thousands_of_stages_are_refused_and_hundreds_are_checked_at_once(tmp_path: Path) -> None:
    """Each stage asked for all installed packages once: 5,000 took more than a minute."""
    path = tmp_path / "x.yaml"
    path.write_text(HEAD + "prefill:\n" + "  - fastv: {}\n" * 5000)
    (told,) = fault_texts(path)
    assert "5000 stages" in told
    budgets = "".join(f"  {tokens}: {{fastv: {{keep_ratio: 0.5}}}}\n" for tokens in range(1, 257))
    path.write_text(HEAD + "prefill:\n" + "  - fastv: {}\n" * 256 + "budgets:\n" + budgets)
    asked = discover._entries.cache_info().misses
    assert len(load_recipe(path).stages) == 256
    assert discover._entries.cache_info().misses <= asked + 1


def test_the_hundredth_fault_is_the_last_that_is_looked_for(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(HEAD + "".join(f"key{number}: 1\n" for number in range(5000)))
    assert len(fault_texts(path)) == 100


def test_a_pipe_is_no_recipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.yaml")
    (told,) = fault_texts(tmp_path / "x.yaml")
    assert "no regular file" in told
