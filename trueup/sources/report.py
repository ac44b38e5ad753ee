"""Collects what is wrong with one document, each fault with its place.

A rendered job stands in two files. Its faults are shown in the job, since there it is put right for that job; what
the job did not write is shown where the job names its template, and the message says where in the template it is.
"""

from collections.abc import Sequence
from typing import Final

from trueup.models.errors import SpecError
from trueup.sources.snapshot import FileKey
from trueup.sources.tree import Path, Spot, Tree, path_text

MAX_ERRORS: Final = 100


class Report:
    """The errors of one document.

    Of a rendered job, *elsewhere* is where it names its template, and *other* where the template's document begins.
    """

    def __init__(
        self,
        tree: Tree,
        *,
        kind: str = "",
        name: str = "",
        elsewhere: Spot | None = None,
        other: Spot | None = None,
    ) -> None:
        self.tree = tree
        self._home: FileKey = tree.root.file
        self._kind = kind
        self._name = name
        self._elsewhere = elsewhere
        self._other = other
        self._found: dict[tuple[Path, str], SpecError] = {}

    @property
    def errors(self) -> tuple[SpecError, ...]:
        """All faults, by place."""
        return tuple(sorted(self._found.values(), key=lambda error: (error.line, error.column, error.path)))

    @property
    def is_full(self) -> bool:
        """Whether so much is wrong that more would help nobody."""
        return len(self._found) >= MAX_ERRORS

    def add(self, path: Sequence[str | int], message: str, hint: str = "", *, key: bool = False) -> None:
        """Adds a fault of the value at *path*, or of its key; the same one only once."""
        if self.is_full:
            return
        spot, origin = self._spot(path, key=key)
        self._found.setdefault(
            (tuple(path), message),
            SpecError(
                file=spot.file.path,
                line=spot.line,
                column=spot.column,
                path=path_text(path),
                message=message + origin,
                hint=hint,
                kind=self._kind,
                name=self._name,
            ),
        )

    def has(self, path: Sequence[str | int]) -> bool:
        """Whether a fault of exactly that value is known already."""
        return any(held == tuple(path) for held, _ in self._found)

    def place(self, path: Sequence[str | int]) -> Spot:
        """Where the document itself speaks of the value at *path*."""
        return self._spot(path, key=False)[0]

    def _spot(self, path: Sequence[str | int], *, key: bool) -> tuple[Spot, str]:
        """Where to point, and words for where the fault itself is if that is another document."""
        spots = self.tree.spots(path, key=key)
        last = spots[-1]
        if self._is_own(last):
            return last, ""
        written = [spot for spot in spots[1:] if self._is_own(spot)]
        shown = written[-1] if written else self._elsewhere or self.tree.root
        return shown, f" (in the template, {last.file.path}:{last.line}:{last.column})"

    def _is_own(self, spot: Spot) -> bool:
        if spot.file != self._home:
            return False
        other = self._other
        if other is None or other.file != self._home:
            return True
        # Job and template in one file: documents follow each other, so the lines tell them apart.
        begins_later = other.line > self.tree.root.line
        return spot.line < other.line if begins_later else spot.line >= self.tree.root.line
