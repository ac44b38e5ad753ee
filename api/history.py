"""Pages of what happened, read from the store in order of arrival."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from api.ask import Ask
from api.doors import Entry
from api.paging import Page
from api.problems import bad_request, gone
from metastore.errors import HistoryCut

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Read(Protocol[T_co]):
    """How the store reads a history."""

    def __call__(
        self, *, after: int | None, limit: int, newest_first: bool, **filters: str
    ) -> Sequence[Entry[T_co]]: ...


def history_page(
    ask: Ask, read: Read[T], *, show: Callable[[Entry[T]], Any], filters: dict[str, str | None]
) -> Page[Any]:
    """The page of a history that *ask* asks for. 410 if what came right after its cursor is gone."""
    cursor, limit = ask.cursor, ask.limit
    after = None
    if cursor.key is not None:
        after = _number(cursor.key)
    try:
        entries = read(
            after=after,
            limit=limit + 1,
            newest_first=ask.flag("reverse"),
            **{name: value for name, value in filters.items() if value is not None},
        )
    except HistoryCut as error:
        raise gone(f"{error}; begin without `after`") from error
    shown = entries[:limit]
    return Page(
        items=tuple(show(entry) for entry in shown),
        next=cursor.next((shown[-1].number,)) if len(entries) > limit else None,
    )


def _number(key: tuple[str | int, ...]) -> int:
    if len(key) == 1 and isinstance(key[0], int):
        return key[0]
    raise bad_request("after is a cursor of another list; take it from `next` of this one")
