"""The reference page of the API, made from the route table; `make docs` writes it."""

import inspect
from collections.abc import Sequence
from typing import Any, Final, Literal, get_args, get_origin

import msgspec

from api.paging import Page
from api.routing import PAGING, WAITING, Parameter, Route

_HEAD: Final = """\
# Control plane HTTP API

<!-- Made by `make docs` from the routes; edit them in `api/` instead. -->

Port 7430, JSON, read-only: what runs is changed by a commit to the source. Any other method is answered with 405,
`Allow`, and a `detail` that says which file of the source to change. HEAD is GET without a body. `/openapi.json` is
this page for programs.

- **Errors** are `application/problem+json` (RFC 9457): `{type, title, status, detail}`.
- **Lists** are `{"items": […], "next": cursor or null}`. `limit` is 100, at most 1000; `after` is the `next` of the
  page before. A cursor of another epoch (the store was made anew or restored) is 410. Unknown parameters are ignored.
- **`X-Index`** is on every answer: the store's change counter. `?index=N&wait=30s` blocks until something newer than
  `N` is there, 30 s by default and 10 minutes at most. An index ahead of the store is of another epoch: 410.
- **Waiting is capped**: beyond the cap of watchers, blocking reads, streams and logs get 503 with
  `Retry-After`; what does not wait is answered all the same.
- **Access**: with a read token, `Authorization: Bearer TOKEN`, or Basic with the token as password. Without one, `Host`
  must be an address, `localhost` or an allowed name. `/healthz` and `/readyz` are open. What is for agents
  takes the node's own secret as Bearer, `/register` the cluster token as well.
- **Times** are RFC 3339 in UTC, **errors of documents** `{file, line, column, path, message, hint}`, 1-based and
  relative to their root (line 0: the file as a whole).

## The event stream

`GET /events` with `Accept: text/event-stream` sends one message a change of the store, with all its events:

```
id: 42
data: {"index":42,"items":[{"index":42,"at":"2026-06-01T12:00:00Z","type":"…","message":"…", …}]}
```

The id is the change's index. `Last-Event-ID` (or `?index=`) resumes right behind it, without gap or repeat; without
either, the stream begins now. Where some of these events are gone, or the id is of another epoch, the answer is 410:
read the state anew. The filters `job node type revision` apply. Every 15 s without news, a comment and the newest id
keep the connection alive.

## Requests
"""


def reference_page(routes: Sequence[Route]) -> str:
    """The page, Markdown."""
    listed = [route for route in routes if route.listed]
    return _HEAD + "".join(_section(route) for route in listed) + "\n## Answers\n" + _answers(listed)


def _section(route: Route) -> str:
    text = f"\n### `{route.method} {route.path}`\n\n{route.about}\n"
    notes = []
    if route.answer is not None:
        notes.append(f"Answers {_type_name(route.answer)}.")
    elif route.media_type:
        notes.append(f"Answers `{route.media_type}`.")
    if route.body is not None:
        notes.append(f"Takes {_type_name(route.body)}.")
    elif route.raw_body:
        notes.append(f"Takes `{route.raw_body}`.")
    if route.waits:
        notes.append("`index` and `wait` block.")
    if notes:
        text += "\n" + " ".join(notes) + "\n"
    rows = [parameter for parameter in route.parameters if parameter not in {*PAGING, *WAITING}]
    if len(rows) < len(route.parameters):
        text += "`limit` and `after` page.\n"
    if rows:
        text += "\n| parameter | |\n| --- | --- |\n" + "".join(_row(parameter) for parameter in rows)
    return text


def _row(parameter: Parameter) -> str:
    words = f" One of `{' '.join(parameter.choices)}`." if parameter.choices else ""
    return f"| `{parameter.name}` | {parameter.about}{words} |\n"


def _answers(routes: Sequence[Route]) -> str:
    kinds: dict[str, type[msgspec.Struct]] = {}
    for route in routes:
        if route.audience != "agents":
            _collect(route.answer, kinds)
    return "".join(_struct(kind) for _, kind in sorted(kinds.items()))


def _collect(kind: Any, kinds: dict[str, type[msgspec.Struct]]) -> None:  # noqa: ANN401 - a type of whatever sort
    for argument in get_args(kind):
        _collect(argument, kinds)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind.__name__ not in kinds:
        kinds[kind.__name__] = kind
        for field in msgspec.structs.fields(kind):
            _collect(field.type, kinds)


def _struct(kind: type[msgspec.Struct]) -> str:
    fields = "".join(
        f"| `{field.encode_name}` | {_type_name(field.type)} |\n" for field in msgspec.structs.fields(kind)
    )
    about = inspect.cleandoc(kind.__doc__ or "")
    return (
        f"\n### {kind.__name__.removesuffix('View')}\n\n{about}\n\n| field | type |\n| --- | --- |\n{fields}"
    )


def _type_name(kind: Any) -> str:  # noqa: ANN401 - as above
    if get_origin(kind) is Literal:
        return " · ".join(f"`{word}`" for word in get_args(kind))
    arguments = [_type_name(argument) for argument in get_args(kind) if argument is not Ellipsis]
    origin = get_origin(kind)
    if origin is Page:
        return f"a list of {arguments[0]}"
    if origin is dict:
        return "an object" if arguments[1] == "any" else f"a map of {arguments[1]}"
    if origin is tuple:
        return f"list of {arguments[0]}"
    if arguments:
        return " or ".join(arguments)
    return _NAMES.get(kind) or f"{kind.__name__.removesuffix('View')}"


_NAMES: Final[dict[Any, str]] = {
    Any: "any",
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    type(None): "null",
}
