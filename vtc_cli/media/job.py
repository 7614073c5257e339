"""What is asked of the process that decodes, and what it answers.

One line of JSON goes in. Lines of JSON come out, each an object with one key: `reader` (which one
decodes), `clip` (width, height, most frames to expect), `frame` (its second; the pixels follow, row
after row), `done` (notes), or `fault`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from vtc_cli.media.frame_options import FrameOptions, ReaderName

Kind = Literal["picture", "animation", "folder", "video"]


@dataclass(frozen=True)
class Content:
    """What a file or folder was found to be.

    Attributes:
        kind: how it is to be read.
        names: the pictures of a folder in natural order (`frame2` before `frame10`).
        others: other files in that folder.
    """

    kind: Kind
    names: tuple[str, ...] = ()
    others: int = 0


@dataclass(frozen=True)
class Job:
    """One file or folder to decode.

    Attributes:
        path: where it lies, absolute.
        label: what the user called it.
        content: what was found there.
        options: the wanted frames.
        reader: the reader to use this time.
        seconds: wall time for it.
    """

    path: str
    label: str
    content: Content
    options: FrameOptions
    reader: ReaderName
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Job:
        """The job of such values."""
        options = FrameOptions(**values.pop("options"))
        return cls(content=Content(**values.pop("content")), options=options, **values)
