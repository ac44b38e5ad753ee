"""The route table's form. App, OpenAPI document and reference page are all made from it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from flask import Response

Answer: TypeAlias = Response | object
"""A ready response, or a value that becomes JSON."""
Handler: TypeAlias = Callable[..., Answer]
"""Called with the `Ask` and the path's variables by name."""
Audience = Literal["readers", "agents", "forges", "everyone"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A query parameter. *kind* says how it is written; *choices* are the words it may be."""

    name: str
    about: str
    kind: Literal["text", "integer", "duration", "boolean"] = "text"
    choices: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One request the API answers. *path* has its variables as `<name>`.

    *answer* is the type of the JSON answer (None: *media_type* says what it is instead; empty: there is none), *body*
    that of what is sent as JSON, *raw_body* the media type of what is sent as it is. A route that is not *listed*
    serves the status page only. *waits*: `?index=N&wait=30s` blocks until something newer.
    """

    path: str
    handler: Handler
    about: str
    answer: Any = None
    media_type: str = "application/json"
    other_media_types: Sequence[str] = ()
    parameters: Sequence[Parameter] = ()
    body: Any = None
    raw_body: str = ""
    method: Literal["GET", "POST"] = "GET"
    audience: Audience = "readers"
    waits: bool = False
    listed: bool = True

    @property
    def variables(self) -> Iterator[str]:
        """Names of the variables in the path."""
        return (part[1:-1] for part in self.path.split("/") if part.startswith("<"))

    @property
    def all_parameters(self) -> tuple[Parameter, ...]:
        """Those of its own, and those of every request that waits."""
        return (*self.parameters, *(WAITING if self.waits else ()))


WAITING = (
    Parameter(name="index", kind="integer", about="Answer only once the store is newer than this `X-Index`."),
    Parameter(name="wait", kind="duration", about="How long to wait for that at most (30s; 10m at most)."),
)
PAGING = (
    Parameter(name="limit", kind="integer", about="How many items at most (100; 1000 at most)."),
    Parameter(name="after", about="`next` of the page before."),
)
REVERSE = Parameter(name="reverse", kind="boolean", about="`true`: the newest first.")


def by_job() -> Parameter:
    """The filter `job`."""
    return Parameter(name="job", about="Only of this job.")


def by_node() -> Parameter:
    """The filter `node`."""
    return Parameter(name="node", about="Only of this node: its name or id.")


def by_status(choices: Sequence[str]) -> Parameter:
    """The filter `status`."""
    return Parameter(name="status", about="Only those with this status.", choices=choices)


def by_revision() -> Parameter:
    """The filter `revision`."""
    return Parameter(name="revision", about="Only of this revision.")
