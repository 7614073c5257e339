"""Marks of dropped patches: colour and form together, so that neither is needed alone."""

from __future__ import annotations

from PIL import ImageDraw

# Okabe and Ito, "Color Universal Design": told apart under all common colour-vision deficiencies.
PALETTE = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (213, 94, 0),
    (204, 121, 167),
    (0, 114, 178),
)
MERGED, PADDING = "merged", "padding"  # other entries of a legend than the marks of stages
FORMS = ("disc", "square", "triangle", "diamond", "cross")


def draw_mark(
    canvas: ImageDraw.ImageDraw, stage: int, centre: tuple[float, float], radius: float
) -> None:
    """Draw the mark of stage number `stage` (from 0) around `centre`."""
    colour, form = PALETTE[stage % len(PALETTE)], FORMS[stage % len(FORMS)]
    x, y = centre
    if form == "disc":
        canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    elif form == "cross":
        width = max(round(radius * 0.7), 1)
        canvas.line((x - radius, y - radius, x + radius, y + radius), fill=colour, width=width)
        canvas.line((x - radius, y + radius, x + radius, y - radius), fill=colour, width=width)
    else:
        canvas.polygon(_corners(form, x, y, radius), fill=colour)


def _corners(form: str, x: float, y: float, radius: float) -> list[tuple[float, float]]:
    if form == "triangle":
        return [(x, y - radius), (x + radius, y + radius), (x - radius, y + radius)]
    if form == "diamond":
        reach = radius * 1.2
        return [(x, y - reach), (x + reach, y), (x, y + reach), (x - reach, y)]
    half = radius * 0.85
    return [(x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half)]
