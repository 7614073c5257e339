"""The options of every command that reads videos: which frames, and by which reader."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

if TYPE_CHECKING:
    from vtc_cli.media.frame_options import FrameOptions

VIDEO = "Video"
MOST_DIGITS = 9
CHOICES = frozenset({"frames", "fps", "keyframes", "start", "end"})

FramesOption = Annotated[
    str | None, typer.Option(help="That many, evenly in time, or all.", rich_help_panel=VIDEO)
]
FpsOption = Annotated[float | None, typer.Option(help="That many a second.", rich_help_panel=VIDEO)]
KeyframesOption = Annotated[
    int | None, typer.Option(help="Those with the largest change.", rich_help_panel=VIDEO)
]
StartOption = Annotated[float, typer.Option(help="Seconds to begin at.", rich_help_panel=VIDEO)]
EndOption = Annotated[float | None, typer.Option(help="Seconds to end at.", rich_help_panel=VIDEO)]
ReaderOption = Annotated[
    str, typer.Option(help="auto (decord up to 10 s), decord or pyav.", rich_help_panel=VIDEO)
]

TimeLimitOption = Annotated[
    float, typer.Option(help="Seconds after which reading is given up.", rich_help_panel=VIDEO)
]


@dataclass(frozen=True, kw_only=True)
class VideoOptions:
    """What the command line says about the frames of a video; field names are the option names."""

    frames: FramesOption = None
    fps: FpsOption = None
    keyframes: KeyframesOption = None
    start: StartOption = 0.0
    end: EndOption = None
    reader: ReaderOption = "auto"
    time_limit: TimeLimitOption = 120.0

    def frame_options(self) -> FrameOptions:
        """Which frames of a video are wanted.

        Raises:
            UsageError: values that contradict each other or lie out of range.
        """
        from vtc_cli.media.frame_options import FrameOptions

        frames: Any = self.frames
        if frames is not None and frames != "all":
            frames = int(frames) if frames.isdecimal() and len(frames) <= MOST_DIGITS else frames
        return FrameOptions(
            frames=frames,
            fps=self.fps,
            keyframes=self.keyframes,
            start=self.start,
            end=self.end,
            reader=cast(Any, self.reader),
            time_limit=self.time_limit,
        )
