"""Lists in pages: `{"items": […], "next": cursor or null}`.

A cursor names the key after which the next page begins, so that pages neither skip nor repeat what was there all the
while, whatever came and went in between. It also names the store's epoch: another one's order means nothing here.
"""

import base64
import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec

from api.problems import bad_request, gone
from trueup.models.codec import understood

T = TypeVar("T")
Key: TypeAlias = tuple[str | int, ...]


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One page of a list; *next* is the `after` of the next page, null on the last."""

    items: tuple[T, ...]
    next: str | None


class _CursorText(msgspec.Struct, frozen=True, array_like=True):
    epoch: int
    key: tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """The key of the last item of the page before (None: begin at the start), in one epoch."""

    epoch: int
    key: Key | None = None

    @classmethod
    def read(cls, text: str | None, *, epoch: int) -> "Cursor":
        """The cursor a client sent back. 400 if it is none of ours, 410 if it is one of another epoch."""
        if text is None:
            return cls(epoch=epoch)
        try:
            decoded = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            found = msgspec.json.decode(decoded, type=understood(_CursorText))
        except ValueError as error:
            raise bad_request(
                "after is no cursor of this API; take it from `next` of the page before"
            ) from error
        if found.epoch != epoch:
            raise gone(
                "the store was made anew or restored since that cursor was given out; begin without `after`"
            )
        return cls(epoch=epoch, key=found.key)

    def next(self, key: Key) -> str:
        """The text of a cursor at *key*."""
        encoded = msgspec.json.encode(_CursorText(self.epoch, key))
        return base64.urlsafe_b64encode(encoded).decode().rstrip("=")

    def passed(self, key: Key) -> bool:
        """Whether *key* was on this page's predecessors. 400 if the cursor belongs to another list."""
        if self.key is None:
            return False
        try:
            return key <= self.key
        except TypeError as error:
            raise bad_request("after is a cursor of another list; take it from `next` of this one") from error


def page_of(
    found: Iterable[T], *, key: Callable[[T], Key], cursor: Cursor, limit: int, show: Callable[[T], Any]
) -> Page[Any]:
    """The page after *cursor* of what was *found*, in the order of *key*, each item as *show* has it."""
    rest = (one for one in found if not cursor.passed(key(one)))
    taken = heapq.nsmallest(limit + 1, rest, key=key)
    shown = taken[:limit]
    return Page(
        items=tuple(show(one) for one in shown),
        next=cursor.next(key(shown[-1])) if len(taken) > limit else None,
    )
