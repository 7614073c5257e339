"""The head of the page: question and answer first, then what the run was and what it met."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel

from vtc_cli.core.trace import Trace
from vtc_cli.core.words import counted
from vtc_cli.report.page.markup import Html, joined, tag
from vtc_cli.report.result import KvBlock, Result, TokensBlock
from vtc_cli.report.table import NO_ACCURACY, fidelity_line, gap_text
from vtc_cli.report.units import milliseconds, significant, size

Tile = tuple[str, str, str]
TIMES = "\u00d7"
NO_QUESTION = "No question was asked"
NO_ANSWER = "The run stopped before the answer: only what its stages decided is shown."


def question_of(result: BaseModel) -> str:
    """The question as the result has it, or that there was none."""
    asked = getattr(getattr(result, "input", None), "question", None)
    return asked or NO_QUESTION


def head(result: BaseModel, trace: Trace) -> Html:
    """Question, answer, warnings, key figures and facts."""
    answered = result if isinstance(result, Result) else None
    parts = [
        tag("p", _eyebrow(result, trace), class_="eyebrow"),
        tag("h1", question_of(result)),
        tag("p", NO_ANSWER, class_="note") if answered is None else _answers(answered),
        _warnings(result, trace),
    ]
    if answered is not None:
        parts.append(_tiles(_key_figures(answered)))
        parts.append(tag("p", answered.verdict, class_="verdict"))
    parts.append(_facts(result, trace))
    return tag("header", *parts)


def _eyebrow(result: BaseModel, trace: Trace) -> str:
    command = getattr(result, "command", None)
    created = getattr(result, "created", None)
    name = f"vtc {command}" if command else "vtc"
    when = str(created).replace("T", " ") if created else None
    return " · ".join(part for part in (name, trace.plan.name, when) if part)


def _answers(result: Result) -> Html:
    """The answer, that of the full model beside it, and how far apart they are."""
    random = result.model.weights == "random"
    shown = [tag("p", NO_ACCURACY, class_="alarm")] if random else []
    cells = [_answer(f"answer under {result.recipe.name}", result.answer)]
    if result.baseline is not None:
        cells.append(_answer("answer of the full model", result.baseline.answer))
    shown.append(tag("div", *cells, class_="answers"))
    if result.baseline is not None:
        line = fidelity_line(result, result.baseline.fidelity)
        shown.append(tag("p", line, class_="fidelity"))
    return joined(*shown)


def _answer(label: str, text: str) -> Html:
    empty = text.strip() == ""
    words = tag("span", "(empty)" if empty else text, class_="empty" if empty else None)
    return tag("p", tag("span", label, class_="label"), words, class_="answer")


def _warnings(result: BaseModel, trace: Trace) -> Html:
    warnings = getattr(result, "warnings", trace.warnings)
    if not warnings:
        return Html()
    items = [tag("li", f"warning: {warning}") for warning in warnings]
    return tag("ul", *items, class_="warnings")


def _tiles(tiles: list[Tile]) -> Html:
    """Label, figure and what it is measured by."""
    shown = [
        tag("div", tag("dt", label), tag("dd", tag("b", value), tag("span", detail)))
        for label, value, detail in tiles
    ]
    return tag("dl", *shown, class_="tiles")


def _key_figures(result: Result) -> list[Tile]:
    tokens, kv = result.tokens, result.kv
    share = kv.bytes / kv.full_bytes if kv.full_bytes else 1.0
    prefill = f"{result.flops.prefill_ratio:.2f}"
    tiles = [
        ("tokens, layer average", f"{tokens.layer_average:.1f}", _budget(tokens, kv)),
        (
            "entering → final",
            f"{tokens.entering} → {tokens.final}",
            f"tokens of {tokens.original} patches",
        ),
        ("prefill operations", prefill, "of the full model's"),
        ("KV cache", size(kv.bytes), f"{share:.2f} of the full model's{_entries(kv)}"),
    ]
    return [*tiles, *_first_token(result), *_information(result)]


def _entries(kv: KvBlock) -> str:
    """A budget of cache entries, if there was one."""
    if kv.requested is None or kv.gap is None:
        return ""
    counts = (kv.counts or "").replace("_", " ")
    return f"; budget {kv.requested:g} {counts}, {gap_text(kv.gap)}"


def _budget(tokens: TokensBlock, kv: KvBlock) -> str:
    if tokens.requested is None or tokens.gap is None:
        return f"of {tokens.original}" + ("" if kv.requested is not None else ", no budget")
    return f"budget {tokens.requested:g}, {gap_text(tokens.gap)}"


def _first_token(result: Result) -> Iterator[Tile]:
    """Time to the first token, if it was measured."""
    times, baseline = result.time_ms, result.baseline
    mine = None if times is None else times.ttft
    full = None if baseline is None or baseline.time_ms is None else baseline.time_ms.ttft
    if mine is not None:
        beside = f"full model {milliseconds(full)}" if full else "full model not timed"
        yield "first token", milliseconds(mine), beside


def _information(result: Result) -> Iterator[Tile]:
    """Information kept, if the full model ran beside it."""
    kept = result.information
    if kept is not None and kept.energy_kept is not None:
        ics = "" if kept.ics_kept is None else f"of the energy; ICS {kept.ics_kept:.2f}"
        yield "information kept", significant(kept.energy_kept), ics


def _facts(result: BaseModel, trace: Trace) -> Html:
    """Model, device, recipe and input, one line each."""
    model, plan = trace.model, trace.plan
    layers = f"{model.shape.decoder.layers} decoder layers"
    facts = [
        ("model", f"{model.id} · {model.family} · {layers} · {model.weights} weights"),
        ("device", f"{model.device} · {model.dtype} · {model.attention}"),
        ("recipe", f"{plan.name} · {plan.fidelity} behaviour · {plan.positions} positions"),
    ]
    media = getattr(result, "input", None)
    if media is not None:
        clip = f" · {counted(media.frames, 'frame')}" if media.kind == "video" else ""
        facts.append(("input", f"{media.path} · {media.width} {TIMES} {media.height}{clip}"))
    shown = [tag("div", tag("dt", name), tag("dd", text)) for name, text in facts]
    return tag("dl", *shown, class_="facts")
