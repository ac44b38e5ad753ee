"""Answers kept for whoever asks next, as many as fit a bound: what was not asked for longest goes first. Pure."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class Kept(Generic[Answer]):
    """At most *most* answers by key."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: dict[Hashable, Answer] = {}

    def of(self, key: Hashable, make: Callable[[], Answer]) -> Answer:
        """The answer kept under *key*, or the one made now."""
        found = self._held.pop(key, None)
        if found is None:
            found = make()
            if len(self._held) >= self._most:
                del self._held[next(iter(self._held))]
        self._held[key] = found
        return found

    def items(self) -> list[tuple[Hashable, Answer]]:
        """What is kept now."""
        return list(self._held.items())

    def put(self, key: Hashable, answer: Answer) -> None:
        """Puts *answer* in the place of what is kept under *key*."""
        self._held[key] = answer
