"""The three walls, read from the imports of the source itself."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "vtc_cli"

FORBIDDEN = {
    "stages": ("transformers", "vtc_cli.models", "vtc_cli.engine", "vtc_cli.metrics"),
    "models": ("vtc_cli.stages", "vtc_cli.engine", "vtc_cli.metrics"),
    "metrics": ("transformers", "vtc_cli.engine", "vtc_cli.models", "vtc_cli.stages"),
    "core": ("transformers", "vtc_cli.engine", "vtc_cli.models", "vtc_cli.stages"),
    "media": ("transformers", "torch", "vtc_cli.engine", "vtc_cli.models"),
    "recipe": ("transformers", "vtc_cli.engine", "vtc_cli.models"),
    "store": ("transformers", "vtc_cli.engine", "vtc_cli.models", "vtc_cli.stages"),
    "report": ("transformers", "vtc_cli.engine", "vtc_cli.models", "vtc_cli.stages"),
}


def imports(source: str) -> set[str]:
    """Every module that a source text imports, at its top or inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def breaches(source: str, forbidden: tuple[str, ...]) -> set[str]:
    return {
        name
        for name in imports(source)
        if any(name == wall or name.startswith(f"{wall}.") for wall in forbidden)
    }


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_no_module_crosses_its_wall(folder: str) -> None:
    files = sorted((PACKAGE / folder).rglob("*.py"))
    assert len(files) > 1
    crossing = {
        str(path.relative_to(ROOT)): found
        for path in files
        if (found := breaches(path.read_text(encoding="utf-8"), FORBIDDEN[folder]))
    }
    assert crossing == {}


def test_the_check_sees_a_breach() -> None:
    source = "def f():\n    from vtc_cli.models import llava\n    import transformers.cache_utils\n"
    assert breaches(source, FORBIDDEN["stages"]) == {
        "vtc_cli.models",
        "vtc_cli.models.llava",
        "transformers.cache_utils",
    }


def test_only_the_engine_registers_hooks() -> None:
    users = {
        path.relative_to(PACKAGE).parts[0]
        for path in PACKAGE.rglob("*.py")
        if "register_forward" in path.read_text(encoding="utf-8")
    }
    assert users == {"engine"}


@pytest.mark.parametrize(
    "stage", [p.stem for p in (PACKAGE / "stages").glob("*.py") if not p.stem.startswith("_")]
)
def test_each_method_has_a_recipe_and_a_test(stage: str) -> None:
    named = [path for path in (ROOT / "recipes").glob("*.yaml") if f"- {stage}" in path.read_text()]
    assert named
    assert (ROOT / "tests" / "stages" / f"test_{stage}.py").is_file()


def test_methods_name_no_family_and_families_name_no_method() -> None:
    methods = {p.stem for p in (PACKAGE / "stages").glob("*.py")} - {"__init__"}
    for path in (PACKAGE / "models").rglob("*.py"):
        text = path.read_text(encoding="utf-8").lower()
        assert not [name for name in methods if re.search(rf"\b{name}\b", text)], path
