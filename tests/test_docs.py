"""README and docs show what the program does: their commands run, their links and names exist."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path

import pytest
import typer

from vtc_cli.app import app, run_command_line

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
LARGEST_README_BYTES = 12_000
GENERATED = {"eval.md", "matrix.md"}  # `make eval` and `make matrix` write them
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
WRITTEN = [page for page in PAGES if page.name not in GENERATED]
OUTPUTS = ("--overlay", "--plot", "--html", "-o", "--tokens")


def commands(page: Path) -> list[str]:
    """The `vtc` commands of a page that need nothing but the repository, without their pipes."""
    return [
        line.removeprefix("$ vtc ").partition(" | ")[0]
        for line in page.read_text(encoding="utf-8").splitlines()
        if line.startswith("$ vtc ") and "/path/to/" not in line
    ]


COMMANDS = [(page.name, command) for page in WRITTEN for command in commands(page)]


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.encode()) <= LARGEST_README_BYTES
    linked = "".join([text, *(page.read_text(encoding="utf-8") for page in WRITTEN)])
    assert [page.name for page in PAGES[1:] if f"{page.name})" not in linked] == []


def test_commands_were_found() -> None:
    assert len([name for name, _ in COMMANDS if name == "README.md"]) >= 3
    assert len(COMMANDS) >= 12


def redirected(command: str, folder: Path) -> list[str]:
    """The command with its files in `folder`, so that those of the pages stay as they are."""
    arguments = shlex.split(command)
    for flag in OUTPUTS:
        if flag in arguments:
            place = arguments.index(flag) + 1
            arguments[place] = str(folder / Path(arguments[place]).name)
    if "--data" in arguments:  # one of the items shows that the command runs
        arguments += ["--limit", "1"]
    return arguments


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_a_command_of_a_page_runs(
    page: str,
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(ROOT)
    if "--tokens" in command:  # goes on from what the compress command of its page wrote
        before = next(
            other for name, other in COMMANDS if name == page and other.startswith("compress")
        )
        assert run_command_line(redirected(before, tmp_path)) == 0
        capsys.readouterr()
    assert run_command_line(redirected(command, tmp_path)) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert printed
    if "-q" in shlex.split(command):  # the answer alone: the page shows it as it is
        assert (
            f"$ vtc {command}\n{printed}" in (next(p for p in PAGES if p.name == page)).read_text()
        )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_are_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert target.startswith("http") or (page.parent / target).exists(), target


@cache
def command_names() -> frozenset[str]:
    """Names of the commands, `recipes show` and its like among them."""
    group = typer.main.get_command(app)
    names = set()
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        names |= {name, *(f"{name} {inner}" for inner in getattr(command, "commands", {}))}
    return frozenset(names)


def unknown_commands(text: str) -> list[str]:
    """`vtc NAME` in code that is no command of the program."""
    named = re.findall(r"(?:`|\$ )vtc ([a-z]+)", text)
    return [name for name in named if name not in command_names()]


FILE = re.compile(r"`((?:[\w.-]+/)+[\w.-]*\.?\w*|[\w-]+\.(?:py|md|sh|toml))`")
# Folders of the package may be named without `vtc_cli/`, files of `docs/` without it.
BASES = (ROOT, ROOT / "vtc_cli", ROOT / "docs")


def missing_files(text: str) -> list[str]:
    """Paths in backquotes under a folder of the repository that do not exist."""
    heads = {path.name for base in BASES[:2] for path in base.iterdir()}
    paths = [path for path in FILE.findall(text) if path.split("/")[0] in heads]
    return [path for path in paths if not any((base / path).exists() for base in BASES)]


@pytest.mark.parametrize("page", [*WRITTEN, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_commands_and_files_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert (unknown_commands(text), missing_files(text)) == ([], [])


def test_the_checks_see_what_does_not_exist() -> None:
    assert unknown_commands("`vtc doctor` and `vtc run`") == ["doctor"]
    assert missing_files("`engine/nothing.py`, `core/budget.py`") == ["engine/nothing.py"]


def test_both_set_up_commands_are_make_targets() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "test"):
        assert f"$ make {target}" in README.read_text(encoding="utf-8")
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_the_recipe_shown_is_the_recipe_shipped() -> None:
    block = (ROOT / "docs" / "recipes.md").read_text().split("```yaml\n")[1].split("```")[0]
    assert block.strip() == (ROOT / "recipes" / "mustdrop.yaml").read_text().strip()


def test_the_method_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = README.read_text(encoding="utf-8")
    for folder, name, language in (
        ("stages", "evens.py", "python"),
        ("recipes", "evens.yaml", "yaml"),
    ):
        (tmp_path / folder).mkdir()
        code = text.split(f"```{language}\n")[1].split("```")[0]
        (tmp_path / folder / name).write_text(code)
    monkeypatch.setenv("VTC_PATH", str(tmp_path))
    picture = str(ROOT / "samples" / "gradient.png")
    assert run_command_line(["run", "-r", "evens", picture, "what is it?", "--json"]) == 0
    assert '"final": 288' in capsys.readouterr().out
