"""What JSON Schema's `format` means in specs: durations, sizes, schedules, signals, RE2 expressions.

Each check raises ValueError with what is wrong and, after a semicolon, what to write instead. The subject is left
out: whoever words the error decides whether the value may be shown.
"""

import ipaddress
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import re2
from jsonschema import FormatChecker

from trueup.models.cron import NICKNAMES, NeverDue, five_fields
from trueup.models.units import parse_cores, parse_duration, parse_percent, parse_size

MAX_EXPRESSION: Final = 4096
SIGNALS: Final = frozenset(
    {
        "SIGABRT",
        "SIGALRM",
        "SIGBUS",
        "SIGCHLD",
        "SIGCONT",
        "SIGFPE",
        "SIGHUP",
        "SIGILL",
        "SIGINT",
        "SIGIO",
        "SIGKILL",
        "SIGPIPE",
        "SIGPROF",
        "SIGPWR",
        "SIGQUIT",
        "SIGSEGV",
        "SIGSTOP",
        "SIGSYS",
        "SIGTERM",
        "SIGTRAP",
        "SIGTSTP",
        "SIGTTIN",
        "SIGTTOU",
        "SIGURG",
        "SIGUSR1",
        "SIGUSR2",
        "SIGVTALRM",
        "SIGWINCH",
        "SIGXCPU",
        "SIGXFSZ",
    }
)
_TYPES: Final = ("array", "boolean", "integer", "null", "number", "object", "string")
_UNIT_FORMS: Final[dict[Callable[[Any], Any], str]] = {
    parse_duration: "is not a duration; write it like 500ms, 10s or 1h30m",
    parse_size: "is not a size; write it like 64KiB, 256MiB or 1.5GiB",
    parse_cores: "is not an amount of cores; the finest step is 0.001",
    parse_percent: "is not a share; write it like 50%",
}


def check_duration(text: str) -> None:
    """`500ms`, `10s`, `1h30m`, `0s`."""
    _check_unit(parse_duration, text)


def check_positive_duration(text: str) -> None:
    """A duration longer than nothing."""
    _check_unit(parse_duration, text)
    if not parse_duration(text):
        raise ValueError("is no time at all; write at least 1ms")


def check_size(text: str) -> None:
    """`64KiB`, `1.5GiB`, `512`."""
    _check_unit(parse_size, text)


def check_cores(cores: float) -> None:
    """Cores in steps of a thousandth."""
    _check_unit(parse_cores, cores)


def check_percent(text: str) -> None:
    """`50%`."""
    _check_unit(parse_percent, text)


def _check_unit(parse: Callable[[Any], Any], value: object) -> None:
    try:
        parse(value)
    except ValueError as error:
        # Their messages begin with the value, which may have to stay hidden here.
        known = "longer than" in str(error) or "larger than" in str(error)
        raise ValueError(str(error).split("' ", 1)[-1] if known else _UNIT_FORMS[parse]) from error


def check_cron(text: str) -> None:
    """Five fields or a nickname."""
    try:
        five_fields(text)
    except NeverDue as error:
        raise ValueError("never fires: the month has no such day; write a day that it has") from error
    except ValueError as error:
        hint = f"write five fields (minute hour day month weekday) or one of {' '.join(NICKNAMES)}"
        cause = str(error.__cause__ or "")
        raise ValueError(f"is no schedule{': ' + cause if cause else ''}; {hint}") from error


@lru_cache(maxsize=1024)
def check_timezone(text: str) -> None:
    """A name of the zone database."""
    try:
        ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("is no time zone; write one like UTC or Europe/Berlin") from error


def check_signal(text: str) -> None:
    """A signal's name with SIG."""
    if text in SIGNALS:
        return
    full = f"SIG{text.upper().removeprefix('SIG')}"
    raise ValueError(f"is no signal; write {full if full in SIGNALS else 'one like SIGTERM'}")


def check_on_change(text: str) -> None:
    """What happens when a file changes: a signal, `restart` or `none`."""
    if text not in SIGNALS and text not in {"restart", "none"}:
        raise ValueError("is no reaction; write a signal such as SIGHUP, restart or none")


@lru_cache(maxsize=1024)
def check_re2(text: str) -> None:
    """An expression RE2 takes: linear time, so no lookaround and no back-references."""
    if len(text) > MAX_EXPRESSION:
        raise ValueError(f"is longer than {MAX_EXPRESSION} characters")
    try:
        re2.compile(text, _quiet())
    except re2.error as error:
        reason = error.args[0] if error.args else ""
        reason = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise ValueError(
            f"is no RE2 expression: {reason}; RE2 has no lookaround and no back-references"
        ) from error


def check_ip(text: str) -> None:
    """An IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError as error:
        raise ValueError("is no IP address; write one like 127.0.0.1, or leave it out") from error


def check_inside(text: str) -> None:
    """A path that stays in the task's folder."""
    if not text or text.startswith("/") or ".." in text.split("/") or "\0" in text:
        raise ValueError("leaves the task's folder; write a relative path such as local/app.conf")


def check_artifact_source(text: str) -> None:
    """An address that artifacts are fetched from. What a variable becomes is seen on the node."""
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in {"https", "http", "file"} or not rest.strip("/"):
        raise ValueError("is no source; write an https:// address")
    if scheme == "file" and not rest.startswith("/"):
        raise ValueError("is no source; write file:///PATH")
    if any(character.isspace() or not character.isprintable() for character in text):
        raise ValueError("is no source; write a space as %20")


def check_off(text: str) -> None:
    """The one word that stands for a mapping."""
    if text != "off":
        raise ValueError("is no hold; write off, or {stops: 50%, jobs: 2}")


def check_json_type(text: str) -> None:
    """One of JSON Schema's seven types."""
    if text not in _TYPES:
        raise ValueError(f"is no type; write one of {', '.join(_TYPES)}")


@lru_cache(maxsize=1)
def _quiet() -> Any:  # noqa: ANN401 - google-re2 has no types
    options = re2.Options()
    options.log_errors = False
    return options


@lru_cache(maxsize=4096)
def compiled(expression: str) -> Any:  # noqa: ANN401 - google-re2 has no types
    """The RE2 program of an expression that passed `check_re2`."""
    return re2.compile(expression, _quiet())


_TEXT_FORMATS: Final[dict[str, Callable[[str], None]]] = {
    "duration": check_duration,
    "positive-duration": check_positive_duration,
    "size": check_size,
    "percent": check_percent,
    "cron": check_cron,
    "timezone": check_timezone,
    "signal": check_signal,
    "on-change": check_on_change,
    "re2": check_re2,
    "ip": check_ip,
    "inside": check_inside,
    "artifact-source": check_artifact_source,
    "off": check_off,
    "json-type": check_json_type,
}


def _passes(check: Callable[[Any], None], kinds: type | tuple[type, ...]) -> Callable[[object], bool]:
    def passes(value: object) -> bool:
        if isinstance(value, kinds) and not isinstance(value, bool):
            check(value)
        return True

    return passes


def format_checker() -> FormatChecker:
    """A checker that knows the formats of specs and no others."""
    checker = FormatChecker(formats=())
    for name, check in _TEXT_FORMATS.items():
        checker.checks(name, raises=ValueError)(_passes(check, str))
    checker.checks("cores", raises=ValueError)(_passes(check_cores, (int, float)))
    return checker
