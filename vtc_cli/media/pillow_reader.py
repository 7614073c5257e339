"""Frames of animated pictures and of folders of pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vtc_cli.core.errors import MediaError
from vtc_cli.core.words import counted
from vtc_cli.media.formats import check_picture, opened
from vtc_cli.media.image import decode_picture, upright_rgb
from vtc_cli.media.sampling import Frame, indices_at, indices_between

UNTIMED_S = 0.1  # how long browsers show a frame whose duration is given as 0
FOLDER_RATE = 1.0


class AnimationReader:
    """Frames of an animated GIF, WebP, PNG or AVIF; see `sampling.Reader`.

    The picture that an animated PNG holds for viewers that cannot move it is no frame of it.
    Such files have no index, so all frames are walked through once for their times and again up
    to the last wanted one. One frame is held at a time.

    Raises:
        MediaError: not one frame can be decoded, or they are too large.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self.notes: list[str] = []
        with opened(path) as picture:
            check_picture(picture, 1, None)
            self._first = int(bool(getattr(picture, "default_image", False)))
            self._begins, self.end = self._timeline(picture)
            picture.seek(self._first)
            self.height, self.width = upright_rgb(picture, []).shape[:2]
        self.rate: float | None = len(self._begins) / self.end

    def shown_at(self, times: Iterable[float]) -> Iterator[Frame]:
        """The frames on screen at these ascending seconds, each of them once."""
        return self._frames(indices_at(self._begins, times))

    def between(self, start: float, end: float) -> Iterator[Frame]:
        """Every frame that is on screen at some time of `[start, end)`."""
        return self._frames(indices_between(self._begins, start, end))

    def _timeline(self, picture: Image.Image) -> tuple[list[float], float]:
        """When each frame appears, and when the last one ends; seconds."""
        begins, now_s, untimed = [], 0.0, 0
        for index in count():
            try:
                picture.seek(self._first + index)
                picture.load()  # durations of WebP and AVIF are known after it only
            except MemoryError:
                raise
            except Exception as error:  # Pillow's readers raise even IndexError over a short file
                if not index or not isinstance(error, EOFError):  # which is the end of the frames
                    self._breaks_off(index, error)
                break
            begins.append(now_s)
            duration_s = float(picture.info.get("duration", 0)) / 1000
            untimed += duration_s <= 0
            now_s += duration_s if duration_s > 0 else UNTIMED_S
        if untimed:
            frames = counted(untimed, "frame")
            self.notes.append(f"{frames} without a duration: {UNTIMED_S:g} s is taken")
        return begins, now_s

    def _breaks_off(self, index: int, error: Exception) -> None:
        if not index:
            text = str(error) or type(error).__name__
            found, hint = f"a broken animation: {text}", "save or copy it again"
            raise MediaError(found, allowed="a complete file", hint=hint) from error
        self.notes.append(f"the animation breaks off after {index} frame{'s' * (index > 1)}")

    def _frames(self, indices: Iterator[int]) -> Iterator[Frame]:
        with opened(self._path) as picture:
            for index in indices:
                picture.seek(self._first + index)
                picture.load()
                done: list[str] = []
                pixels = upright_rgb(picture, done)
                self.notes += [note for note in done if note not in self.notes]
                yield Frame(self._begins[index], pixels)


class FolderReader:
    """The pictures of a folder as frames, one a second; see `sampling.Reader`.

    Args:
        folder: where they lie.
        names: their names in order; at least one.
        label: what the user called the folder.

    Raises:
        MediaError: a broken picture, or one of another size than the first.
    """

    rate: float | None = FOLDER_RATE

    def __init__(self, folder: str, names: list[str], label: str) -> None:
        self._folder, self._names, self._label = Path(folder), names, Path(label)
        self._begins = [index / FOLDER_RATE for index in range(len(names))]
        self.end = len(names) / FOLDER_RATE
        self.notes = ["pictures of a folder have no times: one a second is assumed"]
        self.height, self.width = self._pixels(0, None).shape[:2]

    def shown_at(self, times: Iterable[float]) -> Iterator[Frame]:
        """The pictures on screen at these ascending seconds, each of them once."""
        return map(self._frame, indices_at(self._begins, times))

    def between(self, start: float, end: float) -> Iterator[Frame]:
        """Every picture that is on screen at some time of `[start, end)`."""
        return map(self._frame, indices_between(self._begins, start, end))

    def _frame(self, index: int) -> Frame:
        return Frame(self._begins[index], self._pixels(index, (self.height, self.width)))

    def _pixels(self, index: int, size: tuple[int, int] | None) -> NDArray[np.uint8]:
        name = self._names[index]
        where = str(self._label / name)
        try:
            pixels, done = decode_picture(self._folder / name, where)
        except MediaError as error:
            error.hint = error.hint or "repair it, or take it out of the folder"
            raise
        self.notes += [note for note in done if note not in self.notes]
        if size is not None and pixels.shape[:2] != size:
            raise MediaError(
                f"{pixels.shape[1]} x {pixels.shape[0]} pixels",
                where=where,
                allowed=f"{size[1]} x {size[0]} as the first picture, {self._names[0]}",
                hint="scale the pictures of the folder to one size",
            )
        return cast("NDArray[np.uint8]", pixels)
