"""Files that are read are regular ones, and files that are written are there whole or not at all.

A pipe, a device or a socket may give no byte ever, or bytes without end. What is opened is looked
at after it was opened, for by the name it may be another file a moment later, and the opening does
not wait for the other end of a pipe.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import secrets
import stat
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from vtc_cli.core.errors import VtcError

BLOCK_BYTES = 1 << 20
NOTHING = -1  # in place of a descriptor: what is written there is thrown away


def open_regular(path: str | Path) -> io.BufferedReader | io.BytesIO:
    """Open a regular file for reading.

    One that claims to hold no bytes is given as an empty stream and is not read: files of `/proc`
    claim that too, and some of them never end.

    Raises:
        OSError: as the system says, and for anything but a regular file.
    """
    handle = open_handle(path, os.O_RDONLY)
    if os.fstat(handle).st_size:
        return os.fdopen(handle, "rb")
    os.close(handle)
    return io.BytesIO()


def read_bytes(path: str | Path, most_bytes: int) -> bytes:
    """What a regular file holds.

    Raises:
        OSError: as `open_regular`, and for a file of more than `most_bytes`.
    """
    with open_regular(path) as stream:
        size = stream.seek(0, os.SEEK_END)
        if size > most_bytes:
            found = f"{size} bytes, and at most {most_bytes} are read"
            raise OSError(errno.EFBIG, found, str(path))
        stream.seek(0)
        return stream.read(size)


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a regular file.

    Raises:
        OSError: as `open_regular`.
    """
    digest = hashlib.sha256()
    with open_regular(path) as stream:
        while block := stream.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def open_handle(path: str | Path, flags: int) -> int:
    """A descriptor of a regular file.

    Raises:
        OSError: as the system says, for a name that no file can have, and for a folder, a pipe, a
            device or a socket.
    """
    flags |= os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY  # O_NONBLOCK: do not wait for a writer
    try:
        handle = os.open(path, flags, 0o666)
    except ValueError as error:  # a zero byte, or half a character
        raise OSError(errno.EINVAL, f"no possible name: {error}") from error
    except OSError as error:
        if error.errno == errno.ENXIO:  # a pipe that nobody reads, a socket
            raise _irregular(path) from error
        raise
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        return handle
    os.close(handle)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise _irregular(path)


def _irregular(path: str | Path) -> OSError:
    return OSError(errno.EINVAL, "a device or a pipe, and no regular file", str(path))


def check_regular(folder: Path) -> None:
    """See that libraries which open whatever lies in a folder find nothing there that hangs.

    Raises:
        OSError: a pipe, device or socket in it or below it.
    """
    for place, _, names in os.walk(folder):
        for path in (os.path.join(place, name) for name in names):
            with suppress(FileNotFoundError):  # a link to nothing hangs nobody
                if not stat.S_ISREG(os.stat(path).st_mode):
                    raise _irregular(path)


def temporary_beside(path: Path) -> Path:
    """Where `path` is written before it takes its name; in the same folder, so that it can.

    The name is free and nobody can guess it, so that nobody can lay a link there.
    """
    return path.with_name(f".vtc-{secrets.token_hex(6)}.part")


def own_stream(path: Path) -> int | None:
    """The descriptor that `path` is another name of: stdout, stderr, or `NOTHING` (`/dev/null`)."""
    with suppress(OSError, ValueError):
        there = os.stat(path)
        if os.path.samestat(there, os.stat(os.devnull)):
            return NOTHING
        for number in (1, 2):
            with suppress(OSError):
                if os.path.samestat(there, os.fstat(number)):
                    return number
    return None


def check_output(path: Path) -> None:
    """See that `write_whole` can write `path`; an existing file stays untouched.

    Raises:
        OSError: no right to, an impossible name, or it is neither a regular file, nor stdout, nor
            stderr, nor `/dev/null`.
    """
    if own_stream(path) is not None:
        return
    goal = _goal(path)
    with suppress(FileNotFoundError):
        os.close(open_handle(goal, os.O_WRONLY | os.O_APPEND))
    part = temporary_beside(goal)
    os.close(_created(part))
    part.unlink()


def write_whole(path: Path, content: str | bytes) -> None:
    """Write one file, text in UTF-8 with plain line ends; see `write_all`."""
    write_all({path: content.encode("utf-8") if isinstance(content, str) else content})


def write_all(files: Mapping[Path, bytes]) -> None:
    """Write files so that each name shows its old content or its whole new one.

    All are written beside their names first and then renamed in the given order; a link stays a
    link. Of several, an old file of the last name goes before the first renaming: where the last
    file stands, all belong together. What is another name of stdout or stderr goes there.

    Raises:
        VtcError: something cannot be written; while there is no room for all, nothing changes.
    """
    parts: dict[Path, Path] = {}
    path = Path()
    try:
        for path, data in files.items():
            number = own_stream(path)
            if number is None:
                goal = _goal(path)
                parts[goal] = temporary_beside(goal)
                _write_through(goal, parts[goal], data)
            elif number != NOTHING:
                _write_to(number, data)
        if len(parts) > 1:
            list(parts)[-1].unlink(missing_ok=True)
        for path, part in parts.items():
            part.replace(path)
            sync_folder(path)
    except OSError as error:
        found = f"could not be written: {error.strerror or error}"
        raise VtcError(found, where=str(path)) from error
    finally:
        for part in parts.values():
            with suppress(OSError):
                part.unlink()


def sync_folder(path: Path) -> None:
    """Make the name of a new file survive a crash too, where the system can do that."""
    with suppress(OSError):
        handle = os.open(path.resolve().parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _goal(path: Path) -> Path:
    """Where a link leads: it stays one when the file that it leads to is replaced."""
    try:
        return Path(os.path.realpath(path))
    except ValueError as error:
        raise OSError(errno.EINVAL, f"no possible name: {error}") from error


def _created(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)


def _write_through(goal: Path, part: Path, data: bytes) -> None:
    """Write `part` to the disk, with the rights that `goal` has."""
    with suppress(FileNotFoundError):
        os.close(open_handle(goal, os.O_WRONLY | os.O_APPEND))  # a renaming asks for no such right
    with os.fdopen(_created(part), "wb") as file:
        with suppress(OSError):
            os.fchmod(file.fileno(), stat.S_IMODE(os.stat(goal).st_mode))
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _write_to(number: int, data: bytes) -> None:
    """Write behind what was printed to stdout or stderr before."""
    stream = sys.stdout if number == 1 else sys.stderr
    stream.flush()
    with open(number, "wb", closefd=False) as file:
        file.write(data)
