"""One request as a handler sees it: its parameters, read and checked, and the state it is answered from."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cached_property
from typing import Final

from flask import Request

from api.doors import ApiDeps
from api.paging import Cursor
from api.problems import bad_request
from api.shared import Shared
from trueup.models.state import ClusterState
from trueup.models.units import parse_duration
from trueup.serving import PATIENCE, PEER_GONE

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1000


class Ask:
    """A request in the hands of its handler."""

    def __init__(self, shared: Shared, request: Request) -> None:
        self.shared = shared
        self.request = request

    @property
    def deps(self) -> ApiDeps:
        """What the app was given."""
        return self.shared.deps

    @cached_property
    def index(self) -> int:
        """The store's index when the answer was begun: what it shows is at least as new."""
        return self.shared.index

    @cached_property
    def state(self) -> ClusterState:
        """The state this request is answered from: of one index, unchanging."""
        return self.shared.snapshots.at(self.index)

    @property
    def answered_index(self) -> int:
        """The index that what was read belongs to."""
        return self.state.index if "state" in self.__dict__ else self.index

    @property
    def peer_gone(self) -> Callable[[], bool]:
        """Tells whether the client hung up; always False where the server cannot tell."""
        found: Callable[[], bool] = self.request.environ.get(PEER_GONE, lambda: False)
        return found

    @property
    def patience(self) -> Callable[[float], None]:
        """Says how many seconds the client may take to read the next part of the answer."""
        found: Callable[[float], None] = self.request.environ.get(PATIENCE, lambda _seconds: None)
        return found

    def text(self, name: str) -> str | None:
        """A parameter as written; None if it is absent or empty."""
        return self.request.args.get(name) or None

    def flag(self, name: str) -> bool:
        """A yes-or-no parameter; absent is no, bare is yes."""
        value = self.request.args.get(name)
        if value is None or value in {"false", "0", "no"}:
            return False
        if value in {"", "true", "1", "yes"}:
            return True
        raise bad_request(f"{name}={value!r} is not a yes or no; write true or false")

    def choice(self, name: str, choices: Sequence[str]) -> str | None:
        """A parameter that is one of *choices*, or None."""
        value = self.text(name)
        if value is not None and value not in choices:
            raise bad_request(f"{name}={value!r} is unknown; it is one of {', '.join(choices)}")
        return value

    def integer(self, name: str) -> int | None:
        """A whole number from 0 up, or None."""
        value = self.text(name)
        if value is None:
            return None
        # isdecimal alone takes other scripts' digits, and int() refuses more than 4300 of them with a traceback.
        if not (value.isascii() and value.isdecimal() and len(value) <= 18):
            raise bad_request(f"{name}={value!r} is not a whole number from 0 up")
        return int(value)

    def span(self, name: str) -> timedelta | None:
        """A duration (`30s`; a bare number counts seconds), or None."""
        value = self.text(name)
        if value is None:
            return None
        if value.isascii() and value.isdecimal():
            value += "s"
        try:
            return parse_duration(value)
        except (ValueError, OverflowError) as error:
            raise bad_request(f"{name}: {error}") from error

    @property
    def limit(self) -> int:
        """How many items a page has at most."""
        limit = self.integer("limit")
        if limit is not None and not 1 <= limit <= MAX_LIMIT:
            raise bad_request(f"limit={limit} is not between 1 and {MAX_LIMIT}")
        return DEFAULT_LIMIT if limit is None else limit

    @property
    def cursor(self) -> Cursor:
        """Where the page begins. 410 if the cursor is one of another epoch."""
        return Cursor.read(self.text("after"), epoch=self.state.epoch)
