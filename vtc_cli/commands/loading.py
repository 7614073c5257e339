"""Loading a model for a command: quiet libraries, and a spinner while it takes its time."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vtc_cli.commands.output import Output
from vtc_cli.core.errors import MediaError, UsageError

if TYPE_CHECKING:
    from rich.progress import Progress

    from vtc_cli.core.media import Media
    from vtc_cli.engine.session import Session
    from vtc_cli.media.frame_options import FrameOptions

AUTO = "auto"


def load_session(
    output: Output, model: str, device: str = "auto", dtype: str = "auto", attn: str = "sdpa"
) -> Session:
    """The model, with the libraries' own chatter off.

    Raises:
        ModelError: it cannot be loaded.
    """
    with busy(output, f"loading {model}"):
        session = _load(model, device, dtype, attn)
    if output.quiet and session.facts.weights == "random":
        warn_of_noise(output)
    return session


def warn_of_noise(output: Output) -> None:
    """Say that weights are random where no report on the terminal does."""
    from vtc_cli.report.table import NO_ACCURACY

    output.alarm(NO_ACCURACY)


def model_for(model: str, shown: Sequence[Media]) -> str:
    """The model asked for; for `auto` the shipped one for what a prompt shows.

    Videos of several frames go to `tiny-video`, all else to `tiny`, which takes a single frame as a
    picture. Every command follows this rule.
    """
    videos = [each.kind == "video" and each.frames.shape[0] > 1 for each in shown]
    return _shipped(videos=bool(videos) and all(videos)) if model == AUTO else model


def model_for_items(model: str, paths: Iterable[str], frames: FrameOptions) -> str:
    """As `model_for`, for a command that does all its inputs with one model; by their headers.

    Raises:
        UsageError: pictures and videos, for which there is no one shipped model.
    """
    from vtc_cli.media.video import kind_of

    if model != AUTO:
        return model
    kinds = {path: kind_of(path, frames) for path in dict.fromkeys(paths)}
    pictures = "image" in kinds.values()
    videos = [path for path, kind in kinds.items() if kind == "video"]
    # What is no picture by its header may be no video either; such an item fails by itself.
    if pictures and any(_is_readable(path) for path in videos):
        raise UsageError(
            "pictures and videos, without --model",
            allowed="one kind of them for a shipped model: tiny takes pictures, tiny-video videos",
            hint="--model of a family that takes both, or --frames 1",
        )
    return _shipped(videos=bool(videos) and not pictures)


def _is_readable(path: str) -> bool:
    """Whether a frame of a video can be decoded."""
    from vtc_cli.media.frame_options import FrameOptions
    from vtc_cli.media.video import read_video

    try:
        return bool(read_video(path, FrameOptions(frames=1)).frames.size)
    except MediaError:
        return False


def _shipped(*, videos: bool) -> str:
    from vtc_cli.models.support.load import TINY, TINY_VIDEO

    return TINY_VIDEO if videos else TINY


@contextmanager
def busy(output: Output, text: str) -> Iterator[None]:
    """A spinner on stderr while something slow happens."""
    if not output.shows_progress:
        yield
        return
    from vtc_cli.core.console import Console, Text

    with Console(stderr=True).status(Text(text)):
        yield


@contextmanager
def progress_bar(output: Output) -> Iterator[Progress]:
    """A bar on stderr with the time left; silent where nobody watches."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    from vtc_cli.core.console import Console

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeLeft())
    shown = output.shows_progress
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not shown) as progress:
        yield progress


def _load(model: str, device: str, dtype: str, attn: str) -> Session:
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    from vtc_cli.engine.session import Session
    from vtc_cli.models.support.load import LoadOptions, load_model

    hub_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # of libraries over a checkpoint; its faults are errors
    return Session(*load_model(model, LoadOptions(device, dtype, attn)))
