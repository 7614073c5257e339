"""The file of a comparison: taken up again under the same wishes, or reported without a model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vtc_cli.commands.compare_options import CompareOptions
from vtc_cli.commands.matching import check_rules
from vtc_cli.core.errors import UsageError
from vtc_cli.report.compare.rows import HeadLine, Rows, Wishes, rows_of
from vtc_cli.store.lines import LineFile, read_lines


class RowFile(LineFile):
    """The rows of a comparison; see `LineFile`."""

    kind = "a file that `vtc compare -o` wrote"
    line_starts = (b'{"kind":"',)


def rows_from(options: CompareOptions) -> Rows:
    """The rows of an earlier comparison, judged by another rule if one is named."""
    assert options.source is not None
    rows = rows_of(read_lines(options.source), str(options.source))
    if options.match is not None:
        check_rules(list(rows.items.values()), options.match)
        rows.head = rows.head.model_copy(update={"match": options.match})
    return rows


@contextmanager
def row_file(path: Path | None) -> Iterator[RowFile | None]:
    """The file of `-o`, held against other writers; None without one."""
    if path is None:
        yield None
        return
    with RowFile(path) as file:
        yield file


def rows_in(file: RowFile | None, options: CompareOptions, wishes: Wishes, created: str) -> Rows:
    """The rows done so far, with `file` as the place for new ones.

    Raises:
        UsageError: the file is that of another comparison.
    """
    match = options.match or "normalised"
    head = HeadLine(created=created, argv=sys.argv[1:], match=match, wishes=wishes)
    if file is None:
        return Rows(head)
    if file.end == 0:
        file.append(head.model_dump_json())
    rows = rows_of(read_lines(file.path), str(file.path))
    _check_same(rows.head.wishes, wishes, file.path)
    rows.head = rows.head.model_copy(update={"match": match})
    rows.write = lambda row: file.append(row.model_dump_json())
    return rows


def _check_same(known: Wishes, wishes: Wishes, path: Path) -> None:
    """Refuse to go on with another comparison.

    Raises:
        UsageError: with the first difference.
    """
    for name in type(wishes).model_fields:
        theirs, mine = getattr(known, name), getattr(wishes, name)
        if name == "source":  # the same items may be reached by another path
            theirs, mine = theirs.sha256, mine.sha256
        if theirs != mine:
            raise UsageError(
                f"the file is that of another comparison: its {name} differ",
                where=str(path),
                allowed="the same recipes, budgets, model, items and versions",
                hint="another file for -o",
            )
