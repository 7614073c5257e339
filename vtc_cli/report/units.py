"""Numbers with units, as a person reads them: three significant figures."""

from __future__ import annotations


def flops(value: float) -> str:
    """Operations in k, M, G or T."""
    return _scaled(value, ("", "k", "M", "G", "T", "P"), "FLOPs")


def size(value: float) -> str:
    """Bytes in kB, MB or GB, powers of 1000."""
    return _scaled(value, ("", "k", "M", "G", "T"), "B")


def milliseconds(value: float) -> str:
    """Milliseconds."""
    return f"{significant(value)} ms"


def significant(value: float) -> str:
    """Three significant figures without an exponent."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}".replace(",", " ")
    if abs(value) >= 9.995:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 0.0095 else f"{value:.1g}"


def _scaled(value: float, prefixes: tuple[str, ...], unit: str) -> str:
    scale = 0
    while abs(value) >= 999.5 and scale + 1 < len(prefixes):
        value, scale = value / 1000, scale + 1
    number = f"{value:.0f}" if scale == 0 else significant(value)
    return f"{number} {prefixes[scale]}{unit}"
