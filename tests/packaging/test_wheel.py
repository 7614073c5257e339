"""The wheel carries recipes, samples and the model, and answers from anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(folder), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds nothing but what the wheel unpacks to."""
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*command, "--target", str(target), str(wheel)], check=True)
    return target


def call(installed: Path, folder: Path, *arguments: str) -> str:
    environment = dict(os.environ, PYTHONPATH=str(installed), PYTHONSAFEPATH="1")
    finished = subprocess.run(
        [sys.executable, "-P", "-m", "vtc_cli", *arguments],
        check=True,
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
    )
    return finished.stdout


def test_the_wheel_holds_what_it_needs_and_no_more(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    shipped = {f"vtc_cli/_data/recipes/{path.name}" for path in (ROOT / "recipes").glob("*.yaml")}
    assert shipped <= set(names)
    assert "vtc_cli/assets/tiny/model.safetensors" in names
    page = (ROOT / "vtc_cli" / "report" / "page" / "assets").iterdir()
    assert {f"vtc_cli/report/page/assets/{path.name}" for path in page} <= set(names)
    assert not [name for name in names if name.startswith(("training", "tests"))]
    assert wheel.stat().st_size < 24_000_000


def test_the_wheel_says_its_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        lines = archive.read(metadata).decode().splitlines()
        (text,) = [name for name in archive.namelist() if name.endswith("/licenses/LICENSE")]
        assert archive.read(text) == (ROOT / "LICENSE").read_bytes()
    assert "License-Expression: Apache-2.0" in lines


def test_the_installed_wheel_answers_from_elsewhere(installed: Path, tmp_path: Path) -> None:
    where = "import vtc_cli; print(vtc_cli.__file__)"
    environment = dict(os.environ, PYTHONPATH=str(installed))
    found = subprocess.run(
        [sys.executable, "-P", "-c", where],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    ).stdout
    assert found.startswith(str(installed))
    sample = installed / "vtc_cli" / "_data" / "samples" / "gradient.png"
    question = ["what is the blue shape?", "--recipe", "mustdrop", "--json"]
    page = tmp_path / "page.html"
    text = call(installed, tmp_path, "run", str(sample), *question, "--html", str(page))
    result = json.loads(text)
    assert page.read_text(encoding="utf-8").count("class PatchGrid") == 1
    assert result["model"]["id"] == "tiny"
    assert result["model"]["weights"] == "trained"
    assert result["tokens"]["original"] == 576
    assert result["recipe"]["path"].startswith(str(installed))


def test_constraints_pin_every_dependency_within_its_bounds() -> None:
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {
        name.lower().replace("_", "-"): version
        for name, _, version in (line.partition("==") for line in lines if "==" in line)
    }
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    for requirement in map(Requirement, wanted):
        pinned = pins[requirement.name.lower()]
        assert requirement.specifier.contains(pinned), requirement
    assert "torchvision" not in pins


def test_every_dependency_says_why() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    block = text[text.index("dependencies = [") : text.index("[project.scripts]")]
    lines = block.splitlines()
    quoted = [index for index, line in enumerate(lines) if line.strip().startswith('"')]
    for index in quoted:
        assert "#" in lines[index] or lines[index - 1].strip().startswith("#"), lines[index]


def test_the_oldest_transformers_is_the_one_that_make_oldest_tests() -> None:
    """`make oldest` runs the engine on the release that the lower bound names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (bound,) = [line for line in project["dependencies"] if line.startswith("transformers")]
    lines = (ROOT / "Makefile").read_text().splitlines()
    (oldest,) = [line.partition("?=")[2].strip() for line in lines if line.startswith("OLDEST")]
    assert f">={oldest.removesuffix('.0')}," in bound
