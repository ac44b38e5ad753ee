"""What of a task's output is asked for: the parameters of `GET /allocations/<id>/logs`, read and checked. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import Literal

from trueup.models.units import parse_duration

Stream = Literal["stdout", "stderr"]
_WORDS = {"": False, "false": False, "0": False, "true": True, "1": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRequest:
    """*tail* lines from the end, *since* that long ago, *offset* bytes counted over all attempts (None: all)."""

    task: str
    stream: Stream = "stdout"
    follow: bool = False
    tail: int | None = None
    since: timedelta | None = None
    offset: int | None = None
    previous: bool = False
    timestamps: bool = False


class BadLogRequest(Exception):
    """A parameter that cannot be; *status* is the HTTP status that says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def parse_log_request(parameters: Mapping[str, str], tasks: Sequence[str]) -> LogRequest:
    """Reads *parameters* for an allocation of these *tasks*. BadLogRequest."""
    follow, previous = _flag(parameters, "follow"), _flag(parameters, "previous")
    if follow and previous:
        raise _bad("follow and previous exclude each other: an earlier attempt has ended")
    return LogRequest(
        task=_task(parameters.get("task", ""), tasks),
        stream=_stream(parameters.get("stream", "stdout")),
        follow=follow,
        tail=_number(parameters, "tail"),
        since=_span(parameters),
        offset=_number(parameters, "offset"),
        previous=previous,
        timestamps=_flag(parameters, "timestamps"),
    )


def _task(name: str, tasks: Sequence[str]) -> str:
    if name in tasks:
        return name
    if not name and len(tasks) == 1:
        return tasks[0]
    listed = ", ".join(tasks)
    if name:
        raise BadLogRequest(HTTPStatus.NOT_FOUND, f"it has no task {name!r}; it has {listed}")
    raise _bad(f"say which task: task={listed.replace(', ', ' or task=')}")


def _stream(text: str) -> Stream:
    if text == "stdout":
        return "stdout"
    if text == "stderr":
        return "stderr"
    raise _bad(f"stream: {text!r} is neither stdout nor stderr")


def _flag(parameters: Mapping[str, str], name: str) -> bool:
    text = parameters.get(name, "").lower()
    if text not in _WORDS:
        raise _bad(f"{name}: {text!r} is neither true nor false")
    return _WORDS[text]


def _number(parameters: Mapping[str, str], name: str) -> int | None:
    text = parameters.get(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise _bad(f"{name}: {text!r} is no number")
    return int(text)


def _span(parameters: Mapping[str, str]) -> timedelta | None:
    text = parameters.get("since")
    if text is None:
        return None
    try:
        return parse_duration(text)
    except ValueError as error:
        raise _bad(f"since: {error}") from None


def _bad(message: str) -> BadLogRequest:
    return BadLogRequest(HTTPStatus.BAD_REQUEST, message)
