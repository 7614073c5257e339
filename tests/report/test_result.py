"""The JSON contract, the formats, the streams and the report at three widths."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.report import traces
from vtc_cli.commands.explain import explain
from vtc_cli.core.console import Console
from vtc_cli.core.errors import UsageError
from vtc_cli.core.trace import Trace
from vtc_cli.report.build import build_result
from vtc_cli.report.formats import as_text, print_result
from vtc_cli.report.result import Result
from vtc_cli.report.schema import SCHEMAS, schema_text
from vtc_cli.report.table import NO_ACCURACY, fidelity_line, render


def made(trace: Trace | None = None, *, baseline: bool = True) -> Result:
    """The result of the hand-made run."""
    return build_result(
        trace or traces.compressed(),
        traces.media(),
        "what shape is red?",
        command="run",
        argv=["vtc", "run"],
        seed=0,
        created="2026-01-01T00:00:00Z",
        baseline_trace=traces.full() if baseline else None,
        nll=(0.3, 0.25) if baseline else None,
    )


def printed(result: Result, width: int) -> str:
    """The whole report as text."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    render(result, console)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_round_trip() -> None:
    """JSON gives the same result back; keys of the contract are there, unmeasured is null."""
    result = made(baseline=False)
    assert Result.model_validate_json(as_text(result, "jsonl")) == result
    data = json.loads(as_text(result, "json"))
    assert data["schema_version"] == 1
    assert data["baseline"] is None and data["information"] is None and data["error"] is None
    assert {"vision", "projector", "prefill", "decode_step", "compression"} == set(
        data["flops"]["compressed"]
    )
    assert data["tokens"]["per_layer"] == [552] * 2 + [140] * 4 + [31] * 6


def test_baseline_block() -> None:
    """The full model has the same blocks and the fidelity of the run."""
    baseline = made().baseline
    assert baseline is not None
    assert baseline.kv.bytes == baseline.kv.full_bytes
    assert baseline.flops.prefill_ratio == 1.0
    assert baseline.fidelity.exact_match and baseline.fidelity.top1_agree
    assert baseline.fidelity.answer_nll_delta == pytest.approx(0.05)


def test_unmeasured_times_are_null() -> None:
    """No pass gives no time block, no step gives null and never 0."""
    trace = traces.compressed()
    trace.timings[0].decode_ms = []
    trace.timings = trace.timings[:1]
    times = made(trace).time_ms
    assert times is not None and times.decode_per_token is None and times.spread is None
    trace.timings = []
    assert made(trace).time_ms is None


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.name)
def test_schema_is_current(path: Path) -> None:
    """Renew them with `python -m vtc_cli.report.schema`."""
    assert path.read_text(encoding="utf-8") == schema_text(SCHEMAS[path])


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("baseline", [True, False])
def test_report_fits_and_is_whole(width: int, baseline: bool) -> None:
    """No line is too wide, no figure is cut, the answer stands first."""
    text = printed(made(baseline=baseline), width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    assert text.splitlines()[0].strip() == "rectangle"
    for figure in ("4.78 GFLOPs", "1.15 GFLOPs", "3.66 MB", "1.07 MB", "8.20 ms", "154.2", "140"):
        assert figure in text
    assert ("█" in text) is (width >= 80)
    assert ("24.2 ms" in text) is baseline  # the full model's time is never invented


def test_random_weights_come_first_and_print_no_accuracy() -> None:
    """The first line says so; nothing is said about the answer's change."""
    text = printed(made(traces.random_weights(traces.compressed())), 100)
    assert text.splitlines()[0].strip() == NO_ACCURACY
    assert "answer unchanged" not in text and "answer changed" not in text


def test_warnings_are_shown() -> None:
    """A warning of the trace reaches the reader."""
    trace = traces.compressed()
    trace.warnings.append("the layers were scaled")
    assert "warning: the layers were scaled" in printed(made(trace), 80)


def streams(format: str, *, terminal: bool, quiet: bool = False) -> tuple[str, str]:
    """What stdout and stderr get."""
    out, err = io.StringIO(), io.StringIO()
    consoles = [
        Console(file=stream, width=100, force_terminal=terminal, color_system=None)
        for stream in (out, err)
    ]
    print_result(made(), format, *consoles, quiet=quiet)  # type: ignore[arg-type]
    return out.getvalue(), err.getvalue()


def test_streams() -> None:
    """Piped: the answer alone on stdout; on a terminal: everything there."""
    out, err = streams("table", terminal=False)
    assert out == "rectangle\n" and "LLM prefill" in err
    assert streams("table", terminal=False, quiet=True) == ("rectangle\n", "")
    out, err = streams("table", terminal=True)
    assert "LLM prefill" in out and err == ""
    out, err = streams("json", terminal=True)
    assert json.loads(out)["answer"] == "rectangle" and err == ""


def test_flat_formats() -> None:
    """One row with dotted names."""
    row = next(csv.DictReader(io.StringIO(as_text(made(), "csv"))))
    assert row["tokens.entering"] == "552" and row["information"] == ""
    assert row["baseline.fidelity.exact_match"] == "true"


def test_markdown_is_the_report() -> None:
    """Two tables of equal rows: what each stage left, and the figures of the terminal's report."""
    text = as_text(made(), "md")
    tables = [b.splitlines() for b in text.split("\n\n") if b.startswith("|")]
    assert [len({line.count("|") for line in lines}) for lines in tables] == [1, 1]
    assert tables[0][0] == "| phase | stage | layer | tokens | kept | note |"
    assert "| prefill | dual\\_attention | 2 | 140 | 24 % |  |" in tables[0]
    assert any(line.startswith("| LLM prefill | 4.78 GFLOPs | 1.15 GFLOPs |") for line in tables[1])
    assert text.startswith("**rectangle**\n") and "\n\nverdict: prefill 3.0x faster" in text
    random = made(traces.random_weights(traces.compressed()))
    assert as_text(random, "md").startswith(f"**{NO_ACCURACY}**")


def test_foreign_text_is_spelled_out_everywhere() -> None:
    """Answer, question, file name, recipe, warning: in the report, piped and in Markdown."""
    bad, shown = "[red]\x1b[2J\u202e\x9b[/]", "[red]\\x1b[2J\\u202e\\u009b[/]"
    result = made()
    result = result.model_copy(
        update={
            "answer": bad,
            "warnings": [bad],
            "input": result.input.model_copy(update={"path": bad, "question": f"{bad}\nverdict:"}),
            "recipe": result.recipe.model_copy(update={"name": bad}),
        }
    )
    assert printed(result, 200).count(shown) == 5
    assert f"{shown}\\nverdict:" in printed(result, 200)
    for text in (printed(result, 60), as_text(result, "md"), as_text(result, "json")):
        assert not {"\x1b", "\u202e", "\x9b"} & set(text) or text == as_text(result, "json")
    assert "\x1b" not in as_text(result, "json")


def test_the_verdict_is_its_words_alone() -> None:
    """The field has no label, the report has."""
    result = made()
    assert result.verdict.startswith("prefill 3.0x faster")
    assert f"verdict: {result.verdict[:30]}" in printed(result, 200)


def test_what_rounds_to_zero_has_no_sign() -> None:
    result = made()
    assert result.baseline is not None
    for delta, shown in ((-0.0001, " 0.000 "), (0.0001, " 0.000 "), (-0.02, " -0.020 ")):
        close = result.baseline.fidelity.model_copy(update={"answer_nll_delta": delta})
        assert f"full answer{shown}nats" in fidelity_line(result, close)


def test_explain(capsys: pytest.CaptureFixture[str]) -> None:
    """Formula and unit of a figure; an unknown one names the nearest and lists all."""
    explain("FLOPs")
    text = capsys.readouterr().out
    assert "prefill = sum over layers" in text and "one multiply-add = 2" in text
    with pytest.raises(UsageError) as caught:
        explain("flosp")
    assert caught.value.hint == "vtc explain flops" and "kv" in str(caught.value.allowed)


def test_explain_needs_no_torch() -> None:
    """The command answers at once."""
    code = (
        "import sys, vtc_cli.commands.explain, vtc_cli.metrics.flops; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
