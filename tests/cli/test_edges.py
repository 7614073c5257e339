"""The edges of the command line: start-up, help, listings, errors, settings, streams."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vtc_cli import __version__
from vtc_cli.app import COMMANDS, run_command_line
from vtc_cli.commands import edge
from vtc_cli.commands.output import Output
from vtc_cli.core import errors

ROOT = Path(__file__).parents[2]
LIGHT = [["--help"], ["--version"], ["recipes", "list"], ["recipes", "--help"], ["run", "--help"]]
LIGHT += [["explain", "flops"], ["compress", "--help"]]


@pytest.mark.parametrize("arguments", LIGHT, ids=" ".join)
def test_light_commands_never_load_torch(arguments: list[str]) -> None:
    code = (
        "import sys; from vtc_cli.app import run_command_line as run; "
        f"code = run({arguments!r}); "
        "heavy = {'torch', 'transformers', 'numpy'} & set(sys.modules); "
        "sys.exit(code or (repr(heavy) if heavy else 0))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout


@pytest.mark.parametrize("arguments", [[], *([name] for name in COMMANDS), ["recipes", "show"]])
def test_help_fits_eighty_columns(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run_command_line([*arguments, "--help"]) == 0
    text = capsys.readouterr().out
    assert "Usage: vtc" in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["--version"]) == 0
    assert capsys.readouterr().out == f"vtc {__version__}\n"


def test_recipes_are_listed_in_every_format(capsys: pytest.CaptureFixture[str]) -> None:
    for shape in ("table", "json", "jsonl", "csv", "md"):
        assert run_command_line(["recipes", "list", "--format", shape]) == 0
        text = capsys.readouterr().out
        assert "mustdrop" in text
        if shape == "json":
            assert {row["name"] for row in json.loads(text)} >= {"full", "mustdrop"}
        if shape == "jsonl":
            assert all(json.loads(line)["name"] for line in text.splitlines())
        if shape == "csv":
            rows = csv.DictReader(io.StringIO(text))
            assert {row["name"] for row in rows} >= {"full", "mustdrop"}


def test_show_explains_every_hyper_parameter(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["recipes", "show", "mustdrop"]) == 0
    text = capsys.readouterr().out
    for word in ("global_threshold", "individual_threshold", "protect_ratio", "first_layer"):
        assert word in text
    assert run_command_line(["recipes", "show", "mustdrop", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "mustdrop"


def test_validate_tells_sound_from_unsound(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command_line(["recipes", "validate"]) == 0
    assert "mustdrop: ok" in capsys.readouterr().out
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: bad\npapr: x\nprefill:\n  - mustdrop.dual_attentio: {}\n")
    assert run_command_line(["recipes", "validate", "full", str(bad)]) == 2
    captured = capsys.readouterr()
    assert "full: ok" in captured.out
    assert f"{bad}:2" in captured.out
    assert f"{bad}:4" in captured.out


def test_the_schema_knows_every_stage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["recipes", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    encoder = schema["properties"]["encoder"]["items"]["properties"]
    assert "mustdrop.spatial_merge" in encoder
    stage = schema["$defs"]["mustdrop.key_tokens"]["properties"]["protect_ratio"]
    assert (stage["minimum"], stage["maximum"]) == (0.0, 1.0)


CODES = {
    errors.UsageError("x"): 2,
    errors.RecipeError([errors.VtcError("x", where="f:1")], where="f"): 2,
    errors.MediaError("x"): 2,
    errors.SignalError("x"): 2,
    errors.BudgetError("x"): 2,
    errors.CheckError("x"): 3,
    errors.ModelError("x"): 4,
    errors.MemoryExhaustedError("x"): 5,
    errors.MeasurementError("x"): 1,
    errors.StageError("x"): 1,
    errors.VtcError("x"): 1,
    KeyboardInterrupt(): 130,
    MemoryError(): 5,
    ZeroDivisionError("x"): 1,
}


@pytest.mark.parametrize("error", CODES, ids=lambda error: type(error).__name__)
def test_each_error_has_its_code_and_one_block(
    error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(output: Output) -> None:
        raise error

    assert edge.run_guarded(fail) == CODES[error]  # type: ignore[index]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.strip()
    assert "Traceback" not in captured.err


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(output: Output) -> None:
        output.debug = True
        raise errors.UsageError("on purpose")

    assert edge.run_guarded(fail) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_block_has_where_found_allowed_and_try() -> None:
    error = errors.UsageError("a", where="b", allowed="c", hint="d")
    labels = [line.split()[0] for line in edge.error_block(error).splitlines()[1:]]
    assert labels == ["where", "found", "allowed", "try"]


def test_an_unknown_option_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["recipes", "list", "--nosuch"]) == 2
    assert "--nosuch" in capsys.readouterr().err


def test_a_closed_pipe_is_quiet() -> None:
    finished = subprocess.run(
        f"{sys.executable} -m vtc_cli recipes show mustdrop | head -1",
        shell=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert finished.stderr == ""


@pytest.mark.parametrize(
    ("topic", "words"),
    [
        ("kl", "nats"),
        ("mustdrop.dual_attention", "Deviation: under a token budget"),
        ("tokencarve", "carved_cache"),
        ("mustdrop_tokencarve", "MustDrop, arXiv 2411.10803"),
    ],
)
def test_explain_knows_figures_stages_and_recipes(
    topic: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command_line(["explain", topic]) == 0
    assert words in capsys.readouterr().out


def test_explain_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["explain", "flopps"]) == 2
    assert "vtc explain flops" in capsys.readouterr().err
    assert run_command_line(["explain", "mustdrop.key_token"]) == 2
    assert "mustdrop.key_tokens" in capsys.readouterr().err


@pytest.mark.parametrize(("own", "seen"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_waiting_threads_sleep_unless_the_user_says_otherwise(own: str | None, seen: str) -> None:
    code = (
        "import atexit, os, sys; sys.argv = ['vtc', '--version']; "
        "atexit.register(lambda: print(os.environ['OMP_WAIT_POLICY'])); "
        "from vtc_cli.__main__ import main; main()"
    )
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": own} if own else {}
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert finished.stdout.splitlines()[-1] == seen
