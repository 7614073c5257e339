"""Options from outside the command line: which there are, which one wins, what is refused."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from vtc_cli.app import app, run_command_line
from vtc_cli.commands.output import Output
from vtc_cli.commands.run import run
from vtc_cli.commands.run_options import RunOptions
from vtc_cli.commands.settings import declared, declared_common, found_settings
from vtc_cli.core.errors import UsageError

OF_ONE_RUN = {"with", "then", "tokens", "batch", "overlay", "html", "output", "json", "relevance"}
# A value that is not the default, as a file and as a variable hold it, and as the command gets it.
VALUES: dict[str, tuple[str, str, Any]] = {
    "frames": ('"all"', "8", "all"),
    "fps": ("2", "2.5", 2.0),
    "keyframes": ("4", "5", 4),
    "start": ("1", "0.5", 1.0),
    "end": ("9.5", "9", 9.5),
    "reader": ('"pyav"', "decord", "pyav"),
    "time_limit": ("60", "30", 60.0),
    "recipe": ('"fastv"', "mustdrop", "fastv"),
    "budget": ("64", "64,128", "64"),
    "fidelity": ('"official"', "sound", "official"),
    "exact_layers": ("true", "1", True),
    "model": ('"narrow:llava"', "shape:x", "narrow:llava"),
    "device": ('"cpu"', "cuda", "cpu"),
    "dtype": ('"bfloat16"', "float16", "bfloat16"),
    "attn": ('"flash_attention_2"', "sdpa", "flash_attention_2"),
    "max_new_tokens": ("3", "4", 3),
    "temperature": ("0.5", "1e-1", 0.5),
    "top_p": ("0.9", "0.8", 0.9),
    "seed": ("7", "8", 7),
    "repeats": ("2", "3", 2),
    "baseline": ("true", "yes", True),
    "strict": ("true", "on", True),
    "format": ('"json"', "md", "json"),
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, with no settings of the user's own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "config" / "vtc").mkdir(parents=True)
    (tmp_path / "project" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project" / "deep")
    return tmp_path / "project"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunOptions]:
    """What `vtc run` was asked for, without carrying it out."""
    caught: list[RunOptions] = []
    monkeypatch.setattr("vtc_cli.commands.run.carry_out", lambda options, _: caught.append(options))

    def ask(*arguments: str) -> RunOptions:
        assert run_command_line(["run", "a.png", "what?", *arguments]) == 0
        return caught.pop()

    return ask


def long_options() -> set[str]:
    """Long names of the options of `vtc run`, from the help's own source."""
    command = get_command(app).commands["run"]  # type: ignore[attr-defined]
    flags = {flag for item in command.params for flag in item.opts if flag.startswith("--")}
    return {flag.removeprefix("--").replace("-", "_") for flag in flags} - {"help"}


def test_every_option_of_run_is_a_setting_or_refused_by_name(project: Path) -> None:
    known = declared(run) | declared_common()
    assert set(known) == long_options()
    refused = set()
    for name in known:
        (project / "vtc.toml").write_text(f"{name} = 1\n")
        try:
            found_settings(known, Output())
        except UsageError as error:
            assert f"--{name.replace('_', '-')} on the command line" in str(error.allowed)
            refused.add(name)
    assert refused == OF_ONE_RUN


@pytest.mark.parametrize("name", VALUES)
def test_each_option_is_read_from_a_file_and_from_the_environment(
    project: Path, asked: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    in_file, in_environment, value = VALUES[name]
    (project / "vtc.toml").write_text(f"{name} = {in_file}\n")
    assert getattr(asked(), name) == value
    monkeypatch.setenv(f"VTC_{name.upper()}", in_environment)
    wanted = type(value)(in_environment) if not isinstance(value, bool) else True
    assert getattr(asked(), name) == wanted


def test_flag_over_environment_over_project_over_user(
    project: Path, asked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.parent / "config" / "vtc" / "vtc.toml").write_text("seed = 1\nrepeats = 5\n")
    assert asked().seed == 1
    (project / "vtc.toml").write_text("seed = 2\n")
    assert (asked().seed, asked().repeats) == (2, 5)
    monkeypatch.setenv("VTC_SEED", "3")
    assert asked().seed == 3
    assert asked("--seed", "4").seed == 4
    assert "seed" not in asked().given and "seed" in asked("--seed", "4").given


def test_a_choice_of_frames_on_the_line_displaces_another_one_that_is_set(
    project: Path, asked: Any
) -> None:
    (project / "vtc.toml").write_text("frames = 8\n")
    assert (asked().frames, asked("--fps", "2").frames) == ("8", None)


def test_paths_in_a_file_are_seen_from_its_folder(project: Path, asked: Any) -> None:
    (project / "vtc.toml").write_text('model = "./mine"\nrecipe = "r.yaml"\n')
    options = asked()
    assert (options.model, options.recipe) == (str(project / "mine"), str(project / "r.yaml"))


REFUSED: dict[str, tuple[str, list[str]]] = {
    "unknown": ('modle = "tiny"', ["vtc.toml:2", "unknown setting 'modle'", "try      model"]),
    "a table": ("[run]\nseed = 1", ["vtc.toml:2", "unknown setting 'run'"]),
    "text for a number": ('seed = "one"', ["vtc.toml:2", "seed is 'one'", "a whole number"]),
    "half a seed": ("seed = 1.5", ["vtc.toml:2", "seed is 1.5", "a whole number"]),
    "truth for a number": ("seed = true", ["seed is True", "a whole number"]),
    "number for truth": ("strict = 1", ["strict is 1", "true or false"]),
    "no such shape": ('format = "xml"', ["format is 'xml'", "table, json, jsonl, csv, md"]),
    "too few": ("repeats = 0", ["repeats is 0", "at least 1"]),
    "a list": ("budget = [64]", ["budget is [64]", "a text in quotes, or a number"]),
    "not a number": ("temperature = nan", ["temperature is nan", "a number"]),
    "of one run": ('overlay = "x.png"', ["overlay is no setting", "--overlay on the command line"]),
    "lists in lists": ("a = " + "[" * 50_000, ["nested too deeply"]),
    "tables in tables": ("a." * 20_000 + "b = 1", ["nested too deeply"]),
    "no TOML": ("seed = ", ["cannot be read", "line 2"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_faulty_file_is_refused_with_its_line(
    project: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    text, words = REFUSED[name]
    (project / "vtc.toml").write_text(f"# mine\n{text}\n")
    assert run_command_line(["run", "a.png", "what?"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: wrong usage")
    assert all(word in told for word in words), told


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("VTC_BUGDET", "64", "try      VTC_BUDGET"),
        ("VTC_SEED", "one", "where    VTC_SEED"),
        ("VTC_STRICT", "perhaps", "true or false"),
        ("VTC_OVERLAY", "x.png", "--overlay on the command line"),
        ("VTC_OUTPUT", "x.png", "--output on the command line"),
        ("VTC_JSON", "1", "try      format"),
    ],
)
def test_a_faulty_variable_is_refused_by_name(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variable: str,
    value: str,
    words: str,
) -> None:
    monkeypatch.setenv(variable, value)
    assert run_command_line(["run", "a.png", "what?"]) == 2
    told = capsys.readouterr().err
    assert variable in told and words in told


def test_a_variable_unlike_any_setting_is_a_warning(
    project: Path, asked: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for known in ("VTC_PATH", "VTC_CHECK"):
        monkeypatch.setenv(known, "")
    monkeypatch.setenv("VTC_TRANSCODER", "x")
    asked()
    assert capsys.readouterr().err == "warning: the variable VTC_TRANSCODER means nothing to vtc\n"
    asked("-q")
    assert capsys.readouterr().err == ""


def test_a_faulty_setting_that_a_flag_overrules_and_help_go_on(
    project: Path, asked: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "vtc.toml").write_text('seed = "one"\n')
    assert asked("--seed", "2").seed == 2
    (project / "vtc.toml").write_text("modle = 1\n")
    assert run_command_line(["run", "--help"]) == 0
    assert "VTC_BUDGET=64" in capsys.readouterr().out
    assert run_command_line(["recipes", "list"]) == 0


def test_verbose_tells_where_each_value_came_from(
    project: Path, asked: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "vtc.toml").write_text("\nbudget = 64\n")
    monkeypatch.setenv("VTC_SEED", "3")
    asked("-v")
    told = capsys.readouterr().err
    assert f"budget = 64 from {project}/vtc.toml:2\n" in told
    assert "seed = 3 from VTC_SEED\n" in told
    logging.getLogger("vtc_cli").setLevel(logging.WARNING)


@pytest.mark.parametrize("place", ["user", "project"])
def test_a_budget_that_is_set_is_obeyed_by_every_command_that_has_one(
    project: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = project if place == "project" else project.parent / "config" / "vtc"
    (folder / "vtc.toml").write_text('budget = "many"\n')
    for command in (["run", "a.png", "what?"], ["compress", "a.png", "-o", "x"]):
        assert run_command_line(command) == 2
        assert "--budget 'many'" in capsys.readouterr().err
    assert run_command_line(["compare", "a.png", "what?", "-r", "fastv"]) == 2
    assert "--budget 'many'" in capsys.readouterr().err
