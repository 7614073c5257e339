"""The display matrix of a video: how its frames have to be turned to stand upright."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

MATRIX_BYTES = 36


@dataclass(frozen=True)
class Turn:
    """One of the eight ways to lay a picture on itself.

    Attributes:
        swap: rows become columns, before anything else.
        left_right: then left and right change places.
        up_down: then top and bottom do.
    """

    swap: bool = False
    left_right: bool = False
    up_down: bool = False

    @property
    def mirrors(self) -> bool:
        """Whether letters would read backwards without it: it is no pure rotation."""
        return self.swap ^ self.left_right ^ self.up_down

    @property
    def note(self) -> str:
        """What was done, for the warnings; empty if nothing was."""
        if self == Turn():
            return ""
        if self.mirrors:
            return "mirrored"
        turned = {(True, True): 90, (False, True): 180, (True, False): 270}
        return f"turned clockwise by {turned[self.swap, self.left_right]} degrees"

    def apply(self, pixels: Any) -> Any:
        """Upright (H, W, 3) of stored (h, w, 3); a view."""
        if self.swap:
            pixels = pixels.transpose(1, 0, 2)
        return pixels[:: -1 if self.up_down else 1, :: -1 if self.left_right else 1]


def turn_of(matrix: bytes) -> Turn | None:
    """The turn that a display matrix asks for, None if it is none by right angles.

    The nine numbers a b u, c d v, x y w (ISO/IEC 14496-12, 8.3.2) send a stored point (p, q) to
    (a p + c q, b p + d q).
    """
    if len(matrix) != MATRIX_BYTES:
        return Turn()
    a, b, _, c, d = struct.unpack("=9i", matrix)[:5]
    if a and d and not b and not c:
        return Turn(False, a < 0, d < 0)
    if b and c and not a and not d:
        return Turn(True, c < 0, b < 0)
    return None
