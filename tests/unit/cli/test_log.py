"""Log lines: one form for our events and the libraries' records, safe on a terminal."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from cli.log import configure_logging


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_json_lines_of_both_kinds() -> None:
    """Every line is one JSON object with time, level and name; control characters are escapes."""
    stream = io.StringIO()
    configure_logging(level="info", log_format="json", stream=stream)
    structlog.stdlib.get_logger("trueup").info("placed", allocation="web.app[0]", node="a\u202eb")
    logging.getLogger("cheroot").warning("slow %s", "peer")
    logging.getLogger("urllib3").info("what nobody wants to read")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["placed", "slow peer"]
    assert lines[0]["allocation"] == "web.app[0]"
    assert {"timestamp", "level", "logger"} <= set(lines[0]) & set(lines[1])
    assert "\u202e" not in stream.getvalue()


def test_text_lines() -> None:
    """Fields are readable; what could move the cursor is an escape; below the level nothing is said."""
    stream = io.StringIO()
    configure_logging(level="warning", log_format="text", stream=stream)
    log = structlog.stdlib.get_logger("trueup")
    log.info("not this")
    log.warning("node silent", node="n\x1b[2J")
    text = stream.getvalue()
    assert "not this" not in text
    assert "node silent" in text
    assert "\x1b" not in text


def test_a_failure_has_its_traceback_in_one_json_line() -> None:
    """Programs that read logs read lines."""
    stream = io.StringIO()
    configure_logging(level="info", log_format="json", stream=stream)
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        structlog.stdlib.get_logger("trueup").exception("step failed", loop="reconcile")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 1
    assert "ZeroDivisionError: division by zero" in json.loads(lines[0])["exception"]
