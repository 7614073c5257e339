"""What the page knows of every item: question, answers, fates of tokens, a small picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vtc_cli.core.errors import VtcError
from vtc_cli.core.files import sha256_of
from vtc_cli.report.compare.build import Judge, teams_of
from vtc_cli.report.compare.rows import PictureFacts, Rows
from vtc_cli.report.compare.summary import Comparison
from vtc_cli.report.page.picture import data_uri

PICTURE_PIXELS = 224  # on the longer side
PICTURE_BYTES = 12_000  # of one; grain and noise are scaled down further
ROOM_BYTES = 24_000_000  # of all pictures; those behind are left out and the page says so


def items_data(rows: Rows, found: Comparison) -> dict[str, Any]:
    """Items and, arm by arm in the order of the summary, what each answered.

    Answers and pictures that several share stand once.
    """
    judge, teams = Judge(rows), teams_of(rows)
    texts: dict[str, int] = {}
    pictures = _Pictures()
    items = []
    for name, line in rows.items.items():
        if rows.full(name) is None:
            continue
        passes = []
        for team in teams:
            mine = team.passes.get(name)
            passes.append(None if mine is None else _pass(mine, judge.right(name, mine), texts))
        facts = line.picture
        items.append(
            {
                "id": name,
                "question": line.question,
                "answer": line.answer,
                "category": line.category,
                "size": [facts.width, facts.height],
                "frames": facts.frames if facts.kind == "video" else 0,
                "grid": facts.grid,
                "box": facts.box,
                "picture": pictures.number(facts),
                "passes": passes,
            }
        )
    arms = [
        {"name": arm.name, "kind": arm.kind, "cache": arm.tokens.cache_equivalent is not None}
        for arm in found.arms
    ]
    missing = {"left_out": pictures.left_out, "unread": pictures.unread}
    return {"arms": arms, "texts": list(texts), "pictures": pictures.uris, "items": items} | missing


def _pass(mine: Any, right: bool | None, texts: dict[str, int]) -> list[Any]:
    """Number of the answer, verdict, KL and fates."""
    number = texts.setdefault(mine.answer, len(texts))
    divergence = mine.fidelity and mine.fidelity.kl_first_token
    shown = None if divergence is None else float(f"{divergence:.3g}")
    return [number, right, shown, mine.mask]


class _Pictures:
    """Small pictures, each once, as long as there is room."""

    def __init__(self) -> None:
        self.uris: list[str] = []
        self.left_out = 0
        self.unread = 0
        self._known: dict[str, int | None] = {}
        self._bytes = 0

    def number(self, facts: PictureFacts) -> int | None:
        """The place of a picture in `uris`; None if it is not there."""
        if facts.sha256 not in self._known:
            self._known[facts.sha256] = self._add(facts)
        return self._known[facts.sha256]

    def _add(self, facts: PictureFacts) -> int | None:
        if self._bytes >= ROOM_BYTES:
            self.left_out += 1
            return None
        uri = _small(facts)
        if uri is None:
            self.unread += 1
            return None
        self._bytes += len(uri)
        self.uris.append(uri)
        return len(self.uris) - 1


def _small(facts: PictureFacts) -> str | None:
    """The picture, or the first frame; None if it is gone or another one by now."""
    from vtc_cli.media.video import read_media

    path = Path(facts.path)
    try:
        if facts.kind == "image" and sha256_of(path) != facts.sha256:
            return None
        media = read_media(facts.path)
    except (OSError, VtcError):
        return None
    return data_uri(media.picture(0), PICTURE_PIXELS, PICTURE_BYTES)
