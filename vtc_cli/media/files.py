"""Files as inputs: what the system says about them, their hash, and standard input."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from vtc_cli.core.errors import MediaError
from vtc_cli.core.files import open_regular

STDIN = "-"
BLOCK_BYTES = 1 << 20
MOST_PIPE_BYTES = 4 << 30


def refused(path: str, error: Exception) -> MediaError:
    """What the system said about a path, as unusable input."""
    if isinstance(error, FileNotFoundError):
        return MediaError("no such file", where=path, allowed="a file that exists")
    found = getattr(error, "strerror", None) or error  # strerror does not repeat the path
    allowed = "a file, a folder of pictures, or - for standard input"
    return MediaError(f"cannot be read: {found}", where=path, allowed=allowed)


@contextmanager
def local_file(path: str) -> Iterator[Path]:
    """A readable file or a folder; what comes from standard input is stored meanwhile.

    Decoders jump in their files, which a pipe does not allow. The stored copy is removed in any
    case.

    Raises:
        MediaError: missing, empty, not readable, or a device.
    """
    if path == STDIN:
        with _stored(sys.stdin.buffer, path) as target:
            yield target
        return
    try:
        target = Path(path).expanduser().absolute()
        with suppress(IsADirectoryError), open_regular(target) as file:
            if not file.read(1):
                raise MediaError("no bytes at all", where=path, allowed="a complete file")
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: ~user without a home
        raise refused(path, error) from error
    yield target


@contextmanager
def _stored(stream: BinaryIO, path: str) -> Iterator[Path]:
    handle, name = tempfile.mkstemp(prefix="vtc-")
    try:
        with os.fdopen(handle, "wb") as file:
            _copy(stream, file, path)
        yield Path(name)
    finally:
        with suppress(OSError):
            os.unlink(name)


def _copy(stream: BinaryIO, file: BinaryIO, path: str) -> None:
    size_bytes = 0
    while block := stream.read(BLOCK_BYTES):
        size_bytes += len(block)
        if size_bytes > MOST_PIPE_BYTES:
            allowed = f"at most {MOST_PIPE_BYTES >> 30} GiB through a pipe"
            raise MediaError("more bytes", where=path, allowed=allowed, hint="store it in a file")
        file.write(block)
    if not size_bytes:
        raise MediaError("no bytes at all", where=path, allowed="a complete file")


class Hash(threading.Thread):
    """SHA-256 of a file, or of a folder's files, taken while another process decodes.

    Of a folder it is the hash of the lines `<sha256>  <name>` of its pictures in their order, as
    `sha256sum` prints them.

    Args:
        path: the file or folder.
        names: files in the folder; none for a single file.
        label: what the user called it.
    """

    def __init__(self, path: Path, names: Sequence[str], label: str) -> None:
        super().__init__(daemon=True)  # an interrupted read does not wait for it
        self._path, self._names, self._label = path, names, label
        self._stopped = False
        self._digest = ""
        self._error: OSError | None = None

    def run(self) -> None:
        """Take the hash."""
        try:
            if not self._names:
                self._digest = self._of(self._path)
                return
            lines = [f"{self._of(self._path / name)}  {name}\n" for name in self._names]
            self._digest = hashlib.sha256(os.fsencode("".join(lines))).hexdigest()
        except OSError as error:
            self._error = error

    def stop(self) -> None:
        """Nobody waits for the result any more."""
        self._stopped = True

    def hexdigest(self, end: float) -> str:
        """The hash, waiting for it until `end` on the monotonic clock if need be.

        Raises:
            MediaError: the file could not be read to its end, or not in time.
        """
        self.join(max(0.0, end - time.monotonic()))
        if self.is_alive():
            found, hint = "the file was not read in time", "a faster disk, or raise --time-limit"
            raise MediaError(found, where=self._label, hint=hint)
        if self._error:
            raise refused(self._label, self._error) from self._error
        return self._digest

    def _of(self, path: Path) -> str:
        digest = hashlib.sha256()
        with open_regular(path) as file:
            while not self._stopped and (block := file.read(BLOCK_BYTES)):
                digest.update(block)
        return digest.hexdigest()
