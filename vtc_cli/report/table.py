"""The report a person reads: what was asked, what each stage did, what it saved and cost."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table

from vtc_cli.core.console import Console, Text
from vtc_cli.core.words import counted, fixed
from vtc_cli.report.comparison import comparison_table
from vtc_cli.report.result import FidelityBlock, Result
from vtc_cli.report.stages import stage_table
from vtc_cli.report.units import significant

ACCENT = "cyan"
WIDEST = 110
NO_ACCURACY = "random weights: the answer means nothing and no accuracy is given"


def report(result: Result, width: int) -> RenderableType:
    """Everything but the answer.

    Args:
        result: what to show.
        width: columns of the terminal; below 80 the bars of the stage table go first.
    """
    width = min(width, WIDEST)
    tokens, kind = result.tokens, result.input.kind
    stages = stage_table(tokens.original, tokens.by_stage, width, kind, result.tokens_file)
    parts: list[RenderableType] = [_header(result, width), "", stages, ""]
    parts += [comparison_table(result, width), "", *closing(result)]
    return Padding(Group(*parts), (0, 1))


def render(result: Result, console: Console, *, answer: bool = True) -> None:
    """Print the report, random weights and the answer first."""
    if result.model.weights == "random":
        console.print(Padding(Text(NO_ACCURACY, style="bold"), (0, 1)))
    if answer:
        answer_text = Text(result.answer, style=f"bold {ACCENT}", lines=True)
        console.print(Padding(answer_text, (0, 1)))
        console.print()
    width = min(console.width, WIDEST)
    console.print(report(result, width), width=width, soft_wrap=False)


def facts(result: Result) -> list[str]:
    """Model, input and question, recipe and budget, variant."""
    model, media = result.model, result.input
    clip = f" {counted(media.frames, 'frame')}" if media.kind == "video" else ""
    left = (
        f"{model.id} · {model.family} {model.layers} layers · "
        f"{model.device} {model.dtype} {model.attention} · {model.weights}"
    )
    source = f"{media.path} {media.width}x{media.height}{clip}"
    if result.more_inputs:
        source += f" + {len(result.more_inputs)} more"
    if result.tokens_file is not None:
        source = f"{result.tokens_file.path}, tokens of {source}"
    right = f'{source} · "{media.question}"'
    return [left, right, f"{result.recipe.name} · {budget_line(result)}", _positions(result)]


def _header(result: Result, width: int) -> RenderableType:
    """The facts, in two columns where there is room."""
    rows = [Text(fact) for fact in facts(result)]
    longest = max(len(rows[0]), len(rows[2])) + max(len(rows[1]), len(rows[3]))
    if longest + 5 > width:
        return Group(*rows)
    grid = Table.grid(padding=(0, 3, 0, 0))
    grid.add_row(rows[0], rows[1])
    grid.add_row(rows[2], rows[3])
    return grid


def budget_line(result: Result) -> str:
    """Requested and achieved budget with the other counts."""
    tokens = result.tokens
    if result.kv.requested is not None:
        return _cache_budget_line(result)
    counts = f"{tokens.entering} entering, {tokens.final} final"
    if tokens.requested is None or tokens.gap is None:
        return f"{tokens.layer_average:.1f} visual tokens (layer average), {counts}"
    leaving = ""
    if result.recipe.fidelity == "official":
        leaving = f"{tokens.leaving_average:.1f} counted after each layer, "
    gap = gap_text(tokens.gap)
    return (
        f"budget {tokens.requested:g} -> achieved {tokens.layer_average:.1f} "
        f"(layer average, {gap}), {leaving}{counts}"
    )


def _cache_budget_line(result: Result) -> str:
    """The same where the budget is one of cache entries."""
    tokens, kv = result.tokens, result.kv
    requested, off = kv.requested or 0.0, kv.gap or 0.0
    what = "cache entries" if kv.counts == "cache_entries" else "visual cache entries"
    achieved = f"achieved {requested + off:.1f} ({gap_text(off)})"
    return (
        f"budget {requested:g} {what} a layer and head -> {achieved}, "
        f"{tokens.layer_average:.1f} visual tokens in the prefill (layer average)"
    )


def gap_text(gap: float) -> str:
    """How far a budget was missed."""
    return f"gap {fixed(gap, 1, signed=True)}" if abs(gap) >= 0.05 else "met"


def _positions(result: Result) -> str:
    recipe = result.recipe
    return f"{recipe.fidelity} behaviour, {recipe.positions} positions"


def closing(result: Result) -> list[Text]:
    """Fidelity, verdict and warnings, behind further inputs and questions."""
    lines = [*_spans(result), *_turns(result)]
    if result.baseline is not None:
        lines.append(Text(fidelity_line(result, result.baseline.fidelity)))
    lines.append(Text(f"verdict: {result.verdict}", style="bold"))
    lines += [Text(f"warning: {warning}", style="yellow") for warning in result.warnings]
    return lines


def _spans(result: Result) -> list[Text]:
    """A line for each picture and video, if there are several."""
    lines: list[Text] = []
    for number, span in enumerate(result.tokens.by_span):
        source = result.input if number == 0 else result.more_inputs[number - 1]
        asked = "" if span.requested is None else f" of {span.requested:.1f} asked"
        lines.append(
            Text(
                f"{source.path}: {span.original} -> {span.entering} entering, "
                f"{span.layer_average:.1f}{asked} (layer average), {span.final} final"
            )
        )
    return [*lines, Text()] if lines else []


def _turns(result: Result) -> list[Text]:
    """Further questions and their answers."""
    lines: list[Text] = []
    for turn in result.turns:
        lines.append(Text(f'then "{turn.question}"'))
        read = counted(turn.prompt_tokens, "token")
        cost = f"  {read} read, first token after {turn.ttft_ms:.0f} ms"
        lines.append(Text(turn.answer, f"bold {ACCENT}", lines=True).append(cost, "default"))
    return [*lines, Text()] if lines else []


def fidelity_line(result: Result, fidelity: FidelityBlock) -> str:
    """How close the answer is; of random weights only the distance of distributions is said."""
    parts = [] if result.model.weights == "random" else [_answer_change(result, fidelity)]
    if fidelity.kl_first_token is not None:
        parts.append(f"KL {significant(fidelity.kl_first_token)} nats")
    if fidelity.top1_agree is not None and _acts_later(result):
        parts.append("the first token comes before the cache is cut")
    elif fidelity.top1_agree is not None:
        parts.append("top-1 agrees" if fidelity.top1_agree else "top-1 differs")
    if fidelity.answer_nll_delta is not None:
        delta = fixed(fidelity.answer_nll_delta, 3, signed=True)
        parts.append(f"NLL of the full answer {delta} nats a token")
    return " · ".join(parts)


def _acts_later(result: Result) -> bool:
    """Whether only cache policies acted."""
    return {stage.phase for stage in result.tokens.by_stage} == {"decode"}


def _answer_change(result: Result, fidelity: FidelityBlock) -> str:
    if fidelity.exact_match or result.baseline is None:
        return "answer unchanged"
    return f'answer changed (full model: "{result.baseline.answer}")'
