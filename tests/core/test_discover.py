"""Discovery by file name, from the package, from folders and from other packages."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from vtc_cli.core import discover
from vtc_cli.core.errors import UsageError, VtcError

STAGE = '''"""A stage."""
from dataclasses import dataclass
from vtc_cli.core.decision import Decision
from vtc_cli.core.stage import PrefillStage

@dataclass(frozen=True, kw_only=True)
class KeepIt(PrefillStage):
    """Keeps."""
    layers: tuple[int, ...] = (1,)
    def decide(self, tokens, signals):
        return Decision.identity(len(tokens), tokens.features.device)
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("stages", "recipes", "models"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("VTC_PATH", str(tmp_path))
    return tmp_path


def test_the_package_has_its_methods_and_families() -> None:
    assert {"mustdrop", "tokencarve"} <= set(discover.sources("stages"))
    families = set(discover.sources("models"))
    assert {"llava", "qwen2_vl", "qwen2_5_vl", "qwen3_vl"} <= families
    assert not families & {"support", "base"}  # helpers are no families
    assert "mustdrop.spatial_merge" in discover.stages_of("mustdrop")


def test_a_file_in_a_folder_is_a_method(folder: Path) -> None:
    (folder / "stages" / "mine.py").write_text(STAGE)
    (folder / "stages" / "_hidden.py").write_text("raise RuntimeError")
    assert "mine" in discover.sources("stages")
    assert "_hidden" not in discover.sources("stages")
    assert discover.stage_class("mine")[0] == "mine.keep_it"
    assert discover.stage_class("mine.keep_it")[1].__name__ == "KeepIt"


def test_two_owners_of_a_name_are_both_shown(folder: Path) -> None:
    (folder / "stages" / "mustdrop.py").write_text(STAGE)
    with pytest.raises(UsageError) as caught:
        discover.sources("stages")
    assert str(folder / "stages" / "mustdrop.py") in caught.value.found
    assert caught.value.found.count("mustdrop.py") == 2


def test_two_recipes_of_a_name_are_both_shown(folder: Path) -> None:
    (folder / "recipes" / "full.yaml").write_text("name: full\n")
    with pytest.raises(UsageError, match="two owners"):
        try:
            discover.recipe_files()
        except UsageError as error:
            raise UsageError(error.found) from error


def test_a_module_that_does_not_import_names_its_file(folder: Path) -> None:
    (folder / "stages" / "broken.py").write_text("import no_such_module\n")
    with pytest.raises(VtcError) as caught:
        discover.stages_of("broken")
    assert str(caught.value.where).endswith("broken.py:1")
    assert "no_such_module" in caught.value.found


def test_a_module_without_a_stage_says_so(folder: Path) -> None:
    (folder / "stages" / "empty.py").write_text('"""Nothing."""\n')
    with pytest.raises(VtcError, match="no concrete stage"):
        try:
            discover.stages_of("empty")
        except VtcError as error:
            raise VtcError(error.found) from error


def test_a_folder_with_nothing_for_vtc_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one of the three folders itself: it would be passed over without a word."""
    (tmp_path / "stages").mkdir()
    monkeypatch.setenv("VTC_PATH", str(tmp_path / "stages"))
    with pytest.raises(UsageError) as caught:
        discover.sources("stages")
    assert "holds nothing for vtc" in caught.value.found
    assert caught.value.hint == str(tmp_path)


def test_unknown_names_show_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        discover.stage_class("mustdrop.spatial_merg")
    assert caught.value.hint == "mustdrop.spatial_merge"
    with pytest.raises(UsageError) as caught:
        discover.load_module("models", "lava")
    assert caught.value.hint == "llava"


def test_an_entry_point_of_another_package_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("outside", "vtc_cli.stages.tokencarve", "vtc.stages")

    def points(group: str, search: tuple[str, ...]) -> tuple[EntryPoint, ...]:
        return (point,) if group == "vtc.stages" else ()

    monkeypatch.setattr(discover, "_entries", points)
    assert "outside" in discover.sources("stages")
    assert discover.load_module("stages", "outside").__name__ == "vtc_cli.stages.tokencarve"


def test_a_path_that_is_no_folder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VTC_PATH", "/no/such/folder")
    with pytest.raises(UsageError) as caught:
        discover.sources("stages")
    assert caught.value.where == "VTC_PATH"
