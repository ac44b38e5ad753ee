"""What the list commands share: ask for a list, and show it as a table or as it came."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from cli.blocks import Block, Column, line, table
from cli.client import Client
from cli.output import Result, show, watch
from cli.settings import settings
from cli.views import view

T = TypeVar("T")

WAIT_SECONDS: Final = 30.0
"""How long one blocking read of a watch may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing(Generic[T]):
    """A list: where it is, what its items are, and how people and pipes see them.

    *is_shown* leaves items out of every form; *empty* is said to people where nothing is left.
    """

    path: str
    kind: type[T]
    columns: Sequence[Column[T]]
    name: Callable[[T], str]
    empty: str
    is_shown: Callable[[T], bool] = lambda _: True
    at_most: int | None = None


def run(listing: Listing[T], *, output: str, stay: bool, **parameters: object) -> None:
    """Shows a list once, or again on every change."""
    client = Client(settings())

    def read(newer_than: int) -> Result:
        answer = client.list(
            listing.path,
            at_most=listing.at_most,
            newer_than=newer_than,
            wait_seconds=WAIT_SECONDS if newer_than else 0.0,
            **parameters,
        )
        return as_result(listing, answer.body, answer.index)

    if stay:
        watch(read, output)
    else:
        show(read(0), output)


def as_result(listing: Listing[T], items: Sequence[Any], index: int) -> Result:
    """What a command prints of *items*."""
    read = [(item, view(item, listing.kind)) for item in items]
    shown = [(item, found) for item, found in read if listing.is_shown(found)]

    def blocks(wide: bool) -> list[Block]:
        if not shown:
            return [line(listing.empty)]
        return [table(listing.columns, [found for _, found in shown], wide=wide)]

    return Result(
        plain=[item for item, _ in shown],
        names=[listing.name(found) for _, found in shown],
        blocks=blocks,
        index=index,
    )
