"""Pictures and videos after reading: pixels, times and where they came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Media:
    """One picture or video.

    Attributes:
        frames: (F, H, W, 3) uint8 RGB, upright.
        timestamps: seconds of each frame, 0.0 for a picture.
        kind: `image` or `video`.
        path: as the user gave it, `-` for standard input.
        sha256: hash of the bytes that were read.
        warnings: what was done to make it readable, for instance "first of 12 frames used".
    """

    frames: NDArray[np.uint8]
    timestamps: tuple[float, ...]
    kind: Literal["image", "video"]
    path: str
    sha256: str
    warnings: tuple[str, ...] = ()

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return int(self.frames.shape[1])

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return int(self.frames.shape[2])

    def picture(self, frame: int = 0) -> Any:
        """Frame `frame` as a Pillow image."""
        from PIL import Image

        return Image.fromarray(self.frames[frame], mode="RGB")
