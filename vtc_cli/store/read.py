"""From a token file back to tables and decisions; whatever does not hold together is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vtc_cli.core.decision import MARKS, Decision
from vtc_cli.core.errors import StageError, TokenFileError, VtcError
from vtc_cli.core.files import open_regular, read_bytes
from vtc_cli.core.layout import Grid, Layout
from vtc_cli.core.memory import is_out_of_memory
from vtc_cli.core.tokens import COLUMNS, TokenTable
from vtc_cli.store.head import FORMAT, FORMAT_VERSION, Head
from vtc_cli.store.write import ADDED, ENTERING

ALLOWED = "a file that `vtc compress` wrote"
AGAIN = "compress the picture again"
MOST_BYTES = 8 << 30  # far above the tokens of the longest video that is read
MOST_HEADER_BYTES = 100_000_000  # what the safetensors library allows
LENGTH_BYTES = 8  # a safetensors file begins with the length of its header
WHOLE = torch.int64
SUM_TOLERANCE = 1e-3  # weights are float32 and were multiplied once a stage


@dataclass(frozen=True, eq=False)
class TokenFile:
    """A token file after its checks.

    Attributes:
        path: the file.
        sha256: hash of its bytes.
        head: where the tokens come from.
        entering: tokens at the door of the decoder.
        final: tokens behind the last stage; `entering` itself where no stage acted in the decoder.
        decisions: those of the prefill, in the order of `head.decisions`.
    """

    path: Path
    sha256: str
    head: Head
    entering: TokenTable
    final: TokenTable
    decisions: tuple[Decision, ...]

    def entering_on(self, device: torch.device) -> TokenTable:
        """The tokens at the decoder's door on `device`."""
        table = self.entering
        moved = {name: getattr(table, name).to(device) for name in (*COLUMNS, "origin")}
        added = tuple(rows.to(device) for rows in table.added)
        return TokenTable(**moved, layout=table.layout, added=added)

    def decisions_on(self, device: torch.device) -> tuple[Decision, ...]:
        """The decisions of the prefill on `device`."""
        return tuple(_decision_on(decision, device) for decision in self.decisions)


def _decision_on(decision: Decision, device: torch.device) -> Decision:
    moved: dict[str, Any] = {name: marks.to(device) for name, marks in decision.marks().items()}
    return replace(decision, keep=decision.keep.to(device), mix=decision.mix.to(device), **moved)


def read_tokens(path: Path) -> TokenFile:
    """Read a token file and check that it is whole and agrees with itself.

    Raises:
        TokenFileError: whatever is wrong with it.
    """
    data = _bytes(path)
    head = _head(data, path)
    reader = _Reader(path, head, _tensors(data, path))
    reader.check_order()
    final = reader.table("")
    if not head.decisions:
        return TokenFile(path, _sha256(data), head, final, final, ())
    entering = reader.table(ENTERING)
    decisions, table = [], entering
    for number in range(len(head.decisions)):
        decisions.append(reader.decision(number, len(table)))
        table = reader.applied(table, decisions[-1])
    if not torch.equal(table.anchor, final.anchor):
        raise reader.fault("its decisions lead to other tokens than it holds")
    return TokenFile(path, _sha256(data), head, entering, final, tuple(decisions))


class _Reader:
    """Takes checked tables and decisions out of the tensors of one file."""

    def __init__(self, path: Path, head: Head, tensors: Mapping[str, Tensor]) -> None:
        self._path, self._head, self._tensors = path, head, tensors
        self._layout = Layout(tuple(Grid(**part.model_dump()) for part in head.grids))

    def fault(self, found: str, allowed: str = ALLOWED) -> TokenFileError:
        """An error about this file."""
        return TokenFileError(found, where=str(self._path), allowed=allowed, hint=AGAIN)

    def check_order(self) -> None:
        """See that the decisions belong to prefill stages and stand in the order of the layers."""
        taken = self._head.decisions
        known = dict(enumerate((part.stage, part.phase) for part in self._head.stages))
        named = all(known.get(part.place) == (part.stage, "prefill") for part in taken)
        order = [(part.layer, part.place) for part in taken]
        if not named or any(after <= before for before, after in pairwise(order)):
            raise self.fault("its decisions do not belong to its stages")

    def table(self, prefix: str) -> TokenTable:
        """A table from the columns of that prefix."""
        anchor = self._take(f"{prefix}anchor", (-1,), WHOLE)
        count, original = int(anchor.shape[0]), self._layout.tokens
        self._within(f"{prefix}anchor", anchor, original)
        if torch.unique(anchor).shape[0] != count:
            raise self.fault(f"{prefix}anchor names an original token twice")
        dtype: torch.dtype = getattr(torch, self._head.model.dtype)
        features = self._take(f"{prefix}features", (count, -1), dtype)
        return TokenTable(
            features=self._finite(f"{prefix}features", features),
            position=self._numbers(f"{prefix}position", (count, 3)),
            span=self._take(f"{prefix}span", (count,), WHOLE),
            frame=self._take(f"{prefix}frame", (count,), WHOLE),
            segment=self._take(f"{prefix}segment", (count,), WHOLE),
            key=self._take(f"{prefix}key", (count,), torch.bool),
            size=self._numbers(f"{prefix}size", (count,)),
            protected=self._take(f"{prefix}protected", (count,), torch.bool),
            anchor=anchor,
            origin=self._sparse(f"{prefix}origin.", (count, original)),
            layout=self._layout,
            added=self._added(prefix, tuple(features.shape), dtype),
        )

    def _added(self, prefix: str, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, ...]:
        """Rows for the first decoder layers, as many as the file holds."""
        names = [name for name in self._tensors if name.startswith(f"{prefix}{ADDED}")]
        layers = [f"{prefix}{ADDED}{layer}" for layer in range(len(names))]
        return tuple(self._finite(name, self._take(name, shape, dtype)) for name in layers)

    def decision(self, number: int, incoming: int) -> Decision:
        """Decision `number` of the prefill, over `incoming` rows."""
        prefix, note = f"decision.{number}.", self._head.decisions[number].note
        keep = self._take(f"{prefix}keep", (-1,), WHOLE)
        self._within(f"{prefix}keep", keep, incoming)
        mix = self._sparse(f"{prefix}mix.", (int(keep.shape[0]), incoming))
        marks: dict[str, Any] = {
            name: self._take(prefix + name, tuple(keep.shape), dtype)
            for name, dtype in MARKS.items()
            if prefix + name in self._tensors
        }
        try:
            return Decision(keep=keep, mix=mix, note=note, **marks)
        except StageError as error:
            raise self.fault(f"{prefix.rstrip('.')}: {error.found}") from error

    def applied(self, table: TokenTable, decision: Decision) -> TokenTable:
        """The table after a decision."""
        try:
            return table.apply(decision)
        except StageError as error:
            raise self.fault(error.found) from error

    def _take(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """The tensor `name`, checked; -1 in `shape` is any length."""
        if name not in self._tensors:
            raise self.fault(f"the tensor {name} is missing")
        tensor = self._tensors[name]
        fits = len(shape) == tensor.ndim and all(
            wanted in (-1, found) for wanted, found in zip(shape, tensor.shape, strict=True)
        )
        if not fits or tensor.dtype != dtype:
            found = f"{name} is {tensor.dtype} {_shown(tuple(tensor.shape))}"
            raise self.fault(found, f"{dtype} {_shown(shape)}")
        return tensor

    def _numbers(self, name: str, shape: tuple[int, ...]) -> Tensor:
        return self._finite(name, self._take(name, shape, torch.float32))

    def _finite(self, name: str, values: Tensor) -> Tensor:
        if not bool(torch.isfinite(values).all()):
            raise self.fault(f"{name} with NaN or infinity", "finite values")
        return values

    def _within(self, name: str, index: Tensor, limit: int) -> None:
        if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < limit:
            found = f"{name} reaches from {int(index.min())} to {int(index.max())}"
            raise self.fault(found, f"0..{limit - 1}")

    def _sparse(self, prefix: str, size: tuple[int, int]) -> Tensor:
        """A coalesced (rows, columns) matrix of weights whose rows sum to 1."""
        indices = self._take(f"{prefix}indices", (2, -1), WHOLE)
        values = self._numbers(f"{prefix}values", (int(indices.shape[1]),))
        for row, limit in zip(indices, size, strict=True):
            self._within(f"{prefix}indices", row, limit)
        sums = torch.zeros(size[0]).index_add(0, indices[0], values)
        if not torch.allclose(sums, torch.ones_like(sums), atol=SUM_TOLERANCE):
            raise self.fault(f"{prefix}values of a token do not sum to 1")
        matrix = torch.sparse_coo_tensor(indices, values, size, check_invariants=True)
        return matrix.coalesce()


def _bytes(path: Path) -> bytes:
    try:
        with open_regular(path) as stream:  # whatever else it is need not be read as a whole
            begin = stream.read(LENGTH_BYTES)
            length = min(int.from_bytes(begin, "little"), MOST_HEADER_BYTES)
            _head(begin + stream.read(length), path)
        return read_bytes(path, MOST_BYTES)
    except IsADirectoryError as error:
        raise TokenFileError("a folder", where=str(path), allowed=ALLOWED) from error
    except FileNotFoundError as error:
        raise TokenFileError("no such file", where=str(path), allowed=ALLOWED) from error
    except OSError as error:
        found = f"cannot be read: {error.strerror or error}"
        raise TokenFileError(found, where=str(path), allowed=ALLOWED) from error


def _head(data: bytes, path: Path) -> Head:
    """The head, after the questions that decide whether the rest can be understood."""
    metadata = _metadata(data, path)
    if metadata.get("format") != FORMAT:
        found = "a safetensors file without compressed tokens"
        raise TokenFileError(found, where=str(path), allowed=ALLOWED)
    version = metadata.get("format_version")
    if version != FORMAT_VERSION:
        raise TokenFileError(
            f"format version {version}",
            where=str(path),
            allowed=f"version {FORMAT_VERSION}",
            hint=AGAIN,
        )
    try:
        return Head.from_metadata(metadata)
    except ValueError as error:
        found = f"its head cannot be understood: {_first_fault(error)}"
        raise TokenFileError(found, where=str(path), allowed=ALLOWED, hint=AGAIN) from error


def _metadata(data: bytes, path: Path) -> dict[str, str]:
    """The texts in the header of a safetensors file."""
    length = int.from_bytes(data[:LENGTH_BYTES], "little")
    try:
        header = json.loads(data[LENGTH_BYTES : LENGTH_BYTES + length])
        texts = header.get("__metadata__", {})
        return {str(name): str(text) for name, text in texts.items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise _no_safetensors(path) from error


def _tensors(data: bytes, path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise _no_safetensors(path, f": {error}") from error


def _no_safetensors(path: Path, reason: str = "") -> VtcError:
    found = f"no whole safetensors file{reason}"
    return TokenFileError(found, where=str(path), allowed=ALLOWED, hint=AGAIN)


def _first_fault(error: ValueError) -> str:
    """What is wrong with the first field, of however many."""
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _shown(shape: tuple[int, ...]) -> str:
    return " x ".join("N" if length < 0 else str(length) for length in shape)
