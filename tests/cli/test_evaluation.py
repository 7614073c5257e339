"""`make eval`: every shipped method beside the baselines, on two pages of docs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import evaluation
from tests.report.comparisons import judged
from vtc_cli.core.discover import recipe_files
from vtc_cli.report.compare.build import summarise

ROOT = Path(__file__).parents[2]


def test_the_methods_are_the_shipped_ones() -> None:
    names = evaluation.methods()
    assert {"fastv", "mustdrop", "tokencarve", "mustdrop_tokencarve"} <= set(names)
    assert not {"full", "random", "uniform", "metok"} & set(names)


def test_every_method_stands_beside_the_baselines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    short_page, page = tmp_path / "compare.md", tmp_path / "eval.md"
    short_page.write_text("a\n<!-- eval: begin -->\nold\n<!-- eval: end -->\nb\n", encoding="utf-8")
    arguments = ["--limit", "1", "--budget", "64", "--rows", str(tmp_path / "rows.jsonl")]
    evaluation.main([*arguments, "--page", str(page), "--short", str(short_page)])
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

    short = short_page.read_text(encoding="utf-8")
    assert short.startswith("a\n<!-- eval: begin -->\n|") and "old" not in short
    assert short.endswith("<!-- eval: end -->\nb\n")
    told = [line.split("|")[1].strip() for line in short.splitlines() if line.startswith("|")][2:]
    cut = {"h2o", "snapkv", "streamingllm"}
    names = [f"{name} (cache)" if name in cut else name for name in evaluation.methods()]
    assert sorted(told) == sorted(["full model", *baselines, *set(names) - {"pyramiddrop"}])


def test_the_short_table_stands_beside_random_and_the_smaller_picture() -> None:
    right = {"full": 10, "good": 8, "random": 6, "downsample": 3, "uniform": 1, "average_pool": 0}
    verdicts = {
        (name, "" if name == "full" else "4"): [number < count for number in range(10)]
        for name, count in right.items()
    }
    rows = judged(verdicts, ["good"], ["4"], evaluation.BASELINES)
    lines = evaluation.short_table(summarise(rows, argv=[], created="")).splitlines()
    cells = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]]
             for line in lines}  # fmt: skip
    assert cells[""] == ["4", "to random", "to small"]
    assert cells["full model"][0] == "100.0" and cells["uniform"] == ["10.0", "", ""]
    assert cells["good"] == ["80.0", "+20.0", "+50.0"]
