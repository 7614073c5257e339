"""What is asked of the process that decodes, and what it answers.

One line of JSON goes in. Lines of JSON come out, each an object with one key: `reader` (which one
decodes), `clip` (width, height, most frames to expect), `frame` (its second; the pixels follow, row
after row), `done` (notes), or `fault`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from vtc_cli.core.errors import MediaError
from vtc_cli.media.frame_options import FrameOptions, ReaderName
from vtc_cli.media.sniff import Content


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


def too_large(frames: int, width: int, height: int, allowed_bytes: int) -> MediaError:
    """More pixels than the memory limit allows."""
    size_gib = frames * width * height * 3 / (1 << 30)
    return MediaError(
        f"{frames} frames of {width} x {height}: {size_gib:.1f} GiB",
        allowed=f"at most {allowed_bytes / (1 << 30):.1f} GiB",
        hint="take fewer frames, a shorter span, or scale the video down",
    )
