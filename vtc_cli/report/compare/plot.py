"""The Pareto plot as inline SVG: cost along, accuracy or closeness up, a mark for every arm."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, log10

from vtc_cli.report.compare.build import gain_of
from vtc_cli.report.compare.columns import cost_text
from vtc_cli.report.compare.summary import Arm, Comparison
from vtc_cli.report.marks import FORMS, PALETTE
from vtc_cli.report.page.markup import Html, tag
from vtc_cli.report.units import significant

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 56, 24, 24, 44
RADIUS = 6.0
SMALLEST_KL = 1e-6  # nats; below it a divergence is drawn at the edge
TICKS = 5
MOST_COST = 1.1  # of the full prefill; what costs more stands at the edge
LINE_HEIGHT = 18
LETTER = 6.7  # width of a letter of the label, about

Place = tuple[float, float]


def pareto_plot(found: Comparison) -> Html:
    """The plot, readable without a script; labels show under the pointer and on focus."""
    placed = [(arm, gain) for arm in found.arms if (gain := gain_of(arm, found.judged)) is not None]
    if not placed:
        return Html()
    gains = [_shown(gain, found.judged) for _, gain in placed]
    low, high, ticks = _axis(gains)
    span = high - low

    def place(arm: Arm, gain: float) -> Place:
        x = _across(min(arm.flops.cost_ratio, MOST_COST))
        y = HEIGHT - BOTTOM - (gain - low) / span * (HEIGHT - TOP - BOTTOM)
        return round(x, 1), round(y, 1)

    points = [(arm, place(arm, gain)) for (arm, _), gain in zip(placed, gains, strict=True)]
    parts = [
        _frame(ticks, low, span, found.judged),
        _front([(arm, at) for arm, at in points if arm.on_front]),
        *(_interval(arm, at, low, span) for arm, at in points if arm.accuracy),
        *_marks(points, found),
    ]
    name = "Accuracy over cost" if found.judged else "Distance to the full model over cost"
    view = f"0 0 {WIDTH} {HEIGHT}"
    return tag("svg", *parts, class_="plot", viewBox=view, role="group", aria_label=name)


def legend(found: Comparison) -> Html:
    """Marks and names of recipes and baselines."""
    entries = [
        tag("li", tag("svg", glyph(name, found, 8, 8), viewBox="0 0 16 16", class_="glyph"), name)
        for name in _names(found)
    ]
    return tag("ul", *entries, class_="legend-list")


def glyph(name: str, found: Comparison, x: float, y: float) -> Html:
    """The mark of a recipe: colour and form together, so that neither is needed alone."""
    number = _names(found).index(name)
    baseline = any(recipe.baseline and recipe.name == name for recipe in found.recipes)
    kind = "own" if name == "full" else "rival" if baseline else "entrant"
    red, green, blue = PALETTE[number % len(PALETTE)]
    colour = None if kind != "entrant" else f"#{red:02x}{green:02x}{blue:02x}"
    form = FORMS[number % len(FORMS)]
    path = _form(form, x, y, RADIUS)
    return tag("path", d=path, class_=f"mark {kind} {form}", fill=colour, stroke=colour)


def _across(cost: float) -> float:
    return LEFT + cost / MOST_COST * (WIDTH - LEFT - RIGHT)


def _names(found: Comparison) -> list[str]:
    return list(dict.fromkeys(arm.recipe for arm in found.arms))


def _shown(gain: float, judged: bool) -> float:
    """Percent; without accuracies minus the decimal logarithm of the divergence."""
    return 100 * gain if judged else -log10(max(-gain, SMALLEST_KL))


def _axis(gains: Sequence[float]) -> tuple[float, float, list[float]]:
    """Ends and ticks in round steps around the values."""
    spread = max(max(gains) - min(gains), 1.0)
    rough = spread / TICKS
    power = 10 ** floor(log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    low, high = floor(min(gains) / step) * step, ceil(max(gains) / step) * step
    high = high if high > low else low + step
    count = round((high - low) / step)
    return low, high, [low + step * at for at in range(count + 1)]


def _frame(ticks: Sequence[float], low: float, span: float, judged: bool) -> Html:
    """Rules, numbers and the names of the axes."""
    parts: list[Html] = []
    for tick in ticks:
        y = f"{HEIGHT - BOTTOM - (tick - low) / span * (HEIGHT - TOP - BOTTOM):.1f}"
        parts.append(tag("path", d=f"M{LEFT} {y}H{WIDTH - RIGHT}", class_="rule"))
        text = f"{tick:g}" if judged else significant(10**-tick)
        parts.append(tag("text", text, x=str(LEFT - 8), y=y, dy="0.32em", class_="end"))
    for percent in range(0, 101, 20):
        x = f"{_across(percent / 100):.1f}"
        y = str(HEIGHT - BOTTOM + 18)
        parts.append(tag("text", f"{percent} %", x=x, y=y, class_="middle below"))
    base = f"M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}"
    up = "accuracy, %" if judged else "KL to the full model, nats (up is closer)"
    along = "cost: prefill and compression over the full prefill"
    middle = (LEFT + WIDTH - RIGHT) / 2
    names = (
        tag("text", up, x="8", y="14", class_="title above"),
        tag("text", along, x=str(middle), y=str(HEIGHT - 6), class_="middle title under"),
    )
    return tag("g", *parts, tag("path", d=base, class_="base"), *names, aria_hidden="true")


def _front(points: Sequence[tuple[Arm, Place]]) -> Html:
    """The front as steps: what can be had for at most that cost."""
    ordered = sorted(at for _, at in points)
    if not ordered:
        return Html()
    first, *others = ordered
    steps = "".join(f"H{x}V{y}" for x, y in others)
    return tag("path", d=f"M{first[0]} {first[1]}{steps}", class_="front", aria_hidden="true")


def _interval(arm: Arm, at: Place, low: float, span: float) -> Html:
    """The Wilson interval of an accuracy, cut at the plot's edge."""
    assert arm.accuracy is not None
    high = HEIGHT - BOTTOM

    def up(share: float) -> float:
        y = high - (100 * share - low) / span * (high - TOP)
        return round(min(max(y, TOP - 6), high), 1)

    path = f"M{at[0]} {up(arm.accuracy.low)}V{up(arm.accuracy.high)}"
    return tag("path", d=path, class_="whisker", aria_hidden="true")


def _marks(points: Sequence[tuple[Arm, Place]], found: Comparison) -> list[Html]:
    """Every arm with its label; those of the front are drawn last, on top."""
    ordered = sorted(points, key=lambda point: (point[0].on_front, point[0].kind == "recipe"))
    return [_mark(arm, at, found) for arm, at in ordered]


def _mark(arm: Arm, at: Place, found: Comparison) -> Html:
    lines = label_lines(arm)
    return tag(
        "g",
        tag("circle", cx=str(at[0]), cy=str(at[1]), r="12", class_="target"),
        glyph(arm.recipe, found, *at),
        _label(lines, at),
        class_="point on-front" if arm.on_front else "point",
        tabindex="0",
        role="img",
        aria_label=", ".join(lines),
        data_arm=arm.name,
    )


def label_lines(arm: Arm) -> list[str]:
    """What the label of an arm says."""
    lines = [arm.name]
    if arm.accuracy is not None:
        share = arm.accuracy
        interval = f"{100 * share.low:.1f} to {100 * share.high:.1f}"
        lines.append(f"accuracy {100 * share.share:.1f} % ({interval})")
    if arm.fidelity is not None and arm.fidelity.kl_first_token is not None:
        lines.append(f"KL {significant(arm.fidelity.kl_first_token)} nats")
    lines.append(f"cost {cost_text(arm)} of the full prefill")
    if arm.on_front:
        lines.append("on the Pareto front")
    return lines


def _label(lines: Sequence[str], at: Place) -> Html:
    """A box beside the mark, inside the plot whatever the place."""
    width = max(map(len, lines)) * LETTER + 16
    height = len(lines) * LINE_HEIGHT + 10
    x = at[0] + 14 if at[0] + 14 + width < WIDTH else at[0] - 14 - width
    x = max(x, 0)
    y = min(max(at[1] - height / 2, 0), HEIGHT - height)
    box = {"x": f"{x:.1f}", "y": f"{y:.1f}", "width": f"{width:.1f}", "height": f"{height:.1f}"}
    texts = [
        tag("text", line, x=f"{x + 8:.1f}", y=f"{y + 20 + LINE_HEIGHT * number:.1f}")
        for number, line in enumerate(lines)
    ]
    return tag("g", tag("rect", rx="4", **box), *texts, class_="label", aria_hidden="true")


def _form(form: str, x: float, y: float, r: float) -> str:
    """The path of a mark."""
    if form == "disc":
        return f"M{x - r} {y}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0Z"
    if form == "square":
        h = 0.85 * r
        return f"M{x - h} {y - h}H{x + h}V{y + h}H{x - h}Z"
    if form == "triangle":
        return f"M{x} {y - r}L{x + r} {y + 0.85 * r}H{x - r}Z"
    if form == "diamond":
        d = 1.2 * r
        return f"M{x} {y - d}L{x + d} {y}L{x} {y + d}L{x - d} {y}Z"
    h = 0.8 * r
    return f"M{x - h} {y - h}L{x + h} {y + h}M{x - h} {y + h}L{x + h} {y - h}"
