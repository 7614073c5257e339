"""`make eval`: every shipped method beside the baselines, on a page and in the README."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import evaluation
from vtc_cli.core.discover import recipe_files

ROOT = Path(__file__).parents[2]


def test_the_methods_are_the_shipped_ones() -> None:
    names = evaluation.methods()
    assert {"fastv", "mustdrop", "tokencarve", "mustdrop_tokencarve"} <= set(names)
    assert not {"full", "random", "uniform", "metok"} & set(names)


def test_every_method_stands_beside_the_baselines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    readme, page = tmp_path / "README.md", tmp_path / "eval.md"
    readme.write_text("a\n<!-- eval: begin -->\nold\n<!-- eval: end -->\nb\n", encoding="utf-8")
    arguments = ["--limit", "1", "--budget", "64", "--rows", str(tmp_path / "rows.jsonl")]
    evaluation.main([*arguments, "--page", str(page), "--readme", str(readme)])
    text = page.read_text(encoding="utf-8").replace("\\_", "_")
    table = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert table is not None
    rows = [tuple(cell.strip() for cell in line.split("|")[2:4])
            for line in table.group().splitlines()[2:]]  # fmt: skip
    baselines = [name for name in evaluation.BASELINES if name in recipe_files()]
    expected = {(name, "64") for name in (*evaluation.methods(), *baselines)}
    others = [row for row in rows if row[1] not in ("", "64")]  # beside those that cut caches
    assert {name for name, _ in others} == set(baselines)
    assert "pyramiddrop 64 cannot be had" in text
    assert set(rows) - set(others) == {("full", "")} | expected - {("pyramiddrop", "64")}
    assert len(rows) == len(set(rows))

    short = readme.read_text(encoding="utf-8")
    assert short.startswith("a\n<!-- eval: begin -->\n|") and "old" not in short
    assert short.endswith("<!-- eval: end -->\nb\n")
    told = [line.split("|")[1].strip() for line in short.splitlines() if line.startswith("|")][2:]
    cut = {"h2o", "snapkv", "streamingllm"}
    names = [f"{name} (cache)" if name in cut else name for name in evaluation.methods()]
    assert sorted(told) == sorted(["full model", *baselines, *set(names) - {"pyramiddrop"}])

    titles, _, *lines = table.group().replace("\\*", "").splitlines()
    names = [cell.strip() for cell in titles.split("|")]
    wide = {line.split("|")[2].strip(): line.split("|") for line in lines if "| 64 |" in line}
    for line in short.replace("\\*", "").splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) > 1 and cells[1] in ("divprune", "mustdrop", "fastv"):
            wanted = ("accuracy", "to random", "to down-sampling")
            assert cells[2:5] == [wide[cells[1]][names.index(name)].strip() for name in wanted]
            told.remove(cells[1])
    assert not {"divprune", "mustdrop", "fastv"} & set(told)
