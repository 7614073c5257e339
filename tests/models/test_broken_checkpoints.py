"""Single changes of the shipped checkpoint: each is one clear error, with exit code 4.

`broken_checkpoints.json` holds one change a line: a file, the path of a field in it and its new
value. `DEL` takes the field out; an empty path gives the whole text of the file.
"""

from __future__ import annotations

import json
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.engine.support import noise_media
from vtc_cli.app import run_command_line
from vtc_cli.commands.edge import error_block
from vtc_cli.core.discover import assets_folder
from vtc_cli.core.errors import ModelError
from vtc_cli.core.plan import Plan
from vtc_cli.engine.decode import Generation
from vtc_cli.engine.session import Session
from vtc_cli.models.support import chat
from vtc_cli.models.support.load import LoadOptions, load_model

TINY = assets_folder() / "tiny"
TABLE = Path(__file__).with_name("broken_checkpoints.json")
CHANGES: list[list[Any]] = json.loads(TABLE.read_text(encoding="utf-8"))


def broken(folder: Path, file: str, field: list[Any], value: Any) -> Path:
    for path in TINY.iterdir():
        if path.name != file:
            (folder / path.name).symlink_to(path)
    if not field:
        (folder / file).write_text(value)
        return folder
    whole = json.loads((TINY / file).read_text())
    inner = whole
    for name in field[:-1]:
        inner = inner[name]
    if value == "DEL":
        del inner[field[-1]]
    else:
        inner[field[-1]] = value
    (folder / file).write_text(json.dumps(whole))
    return folder


def used(folder: Path) -> None:
    """Load the checkpoint and let it answer with one token."""
    adapter, facts = load_model(str(folder), LoadOptions())
    prompt = adapter.prepare(noise_media(), "what color is the circle ?")
    Session(adapter, facts).run(prompt, Plan("full"), Generation(max_new_tokens=1))


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: " ".join(map(str, change))[:60])
def test_a_broken_checkpoint_is_one_clear_error(tmp_path: Path, change: list[Any]) -> None:
    with pytest.raises(ModelError) as caught:
        used(broken(tmp_path, *change))
    assert caught.value.exit_code == 4
    block = error_block(caught.value)
    assert "Traceback" not in block and "\n  found" in block and "no message" not in block


def test_warnings_of_libraries_do_not_stand_beside_the_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change = ("processor_config.json", ["image_processor", "image_std", 1], 1e-300)
    folder = broken(tmp_path, *change)
    picture = str(TINY.parents[2] / "samples" / "checks.png")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert run_command_line(["run", picture, "?", "-m", str(folder)]) == 4
    assert not seen
    assert capsys.readouterr().err.startswith("error: ")


def test_the_untouched_checkpoint_answers(tmp_path: Path) -> None:
    used(broken(tmp_path, "none", [], ""))


def test_loops_of_a_template_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "SECONDS", 0.2)
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    folder = broken(tmp_path, "chat_template.jinja", [], loop)
    began = time.monotonic()
    with pytest.raises(ModelError, match=r"more than 0\.2 seconds"):
        used(folder)
    assert time.monotonic() - began < 20
