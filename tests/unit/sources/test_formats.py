"""What each format of the schemas takes, and what it refuses."""

from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trueup.sources.formats import compiled, format_checker

CHECKER: Final = format_checker()
TAKEN: Final[dict[str, list[Any]]] = {
    "duration": ["0s", "500ms", "10s", "1h30m", "7d", "1.5h"],
    "positive-duration": ["1ms", "10s"],
    "size": ["512", "64KiB", "1.5GiB", "100MB", "0"],
    "percent": ["0%", "50%", "100%"],
    "cores": [0, 0.1, 0.001, 4, 19.999],
    "cron": ["* * * * *", "*/5 0 1,15 * mon", "@hourly", "@daily", "@weekly", "@monthly", "@yearly"],
    "timezone": ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires"],
    "signal": ["SIGTERM", "SIGHUP", "SIGKILL"],
    "on-change": ["SIGHUP", "restart", "none"],
    "re2": ["^a+$", "(?i)x", r"\d{3}", ""],
    "ip": ["127.0.0.1", "10.0.0.1", "::1"],
    "inside": ["local/app.conf", "a", "./a", "local/", ".", "..a/b..", "${JOB_NAME}/a"],
    "artifact-source": [
        "https://x/a.tgz",
        "http://u:${secret:p}@[::1]:80/a",
        "file:///srv/a%20b",
        "https://${X}/",
    ],
    "json-type": ["string", "null"],
}
REFUSED: Final[dict[str, list[Any]]] = {
    "duration": ["", "10", "s", "10 s", "-1s", "1h 30m", "١s", "10sec", "999999999999h"],
    "positive-duration": ["0s", "0h0m"],
    "size": ["", "1G", "1 GiB", "-1B", "big", "9999999999TiB"],
    "percent": ["50", "101%", "-1%", "1.5%", "%"],
    "cores": [-1, 0.0001],
    "cron": ["", "* * * *", "* * * * * *", "61 * * * *", "@often", "* * * * 8"],
    "timezone": ["", "Mars", "../../etc/passwd", "/etc/localtime", "europe/nowhere"],
    "signal": ["TERM", "sigterm", "15", ""],
    "on-change": ["HUP", "RESTART", ""],
    "re2": ["(", "(?=x)", r"(a)\1", "a{2000}", "x" * 5000],
    "ip": ["localhost", "1.2.3", "127.0.0.1:80", ""],
    "inside": ["/etc/passwd", "../a", "a/../../b", "a/../b", "..", "", "a\0b"],
    "artifact-source": [
        "",
        "x",
        "https://",
        "HTTPS://x",
        "ftp://x/y",
        "file://x/y",
        "file:///",
        "https://x/a b",
        "file:/x",
    ],
    "json-type": ["text", "int"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, held in TAKEN.items() for value in held])
def test_a_format_takes(name: str, value: object) -> None:
    CHECKER.check(value, name)


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, held in REFUSED.items() for value in held]
)
def test_a_format_refuses(name: str, value: object) -> None:
    assert not CHECKER.conforms(value, name)


@given(st.sampled_from(sorted(TAKEN)), st.text(max_size=20) | st.integers() | st.floats(0, 1e6) | st.none())
def test_a_format_never_raises_anything_but_its_verdict(name: str, value: object) -> None:
    CHECKER.conforms(value, name)


def test_no_expression_takes_more_than_its_length() -> None:
    """RE2: what would take exponential time elsewhere is answered at once."""
    assert not compiled("(a+)+$").search("a" * 50_000 + "b")
