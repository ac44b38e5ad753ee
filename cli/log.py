"""Log lines on stderr: text for people or JSON for programs, the same for our own events and the libraries' records.

Every line passes through structlog, so whatever a library logs has the same form; control characters from specs and
peers show as escapes.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final, TextIO

import structlog

from cli.clean import clean, escape_in_json

_QUIET: Final = ("alembic", "docker", "requests", "urllib3", "watchdog")
"""Libraries that tell at info what interests nobody but their authors."""

_SHARED: Final[tuple[structlog.typing.Processor, ...]] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.ExtraAdder(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
)


def configure_logging(
    *, level: str, log_format: str, stream: TextIO | None = None, color: bool = False
) -> None:
    """Sends all log lines of at least *level* to *stream* (stderr), as `text` or `json`. May be called again."""
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(log_format, color=color),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def _renderers(log_format: str, *, color: bool) -> list[structlog.typing.Processor]:
    if log_format == "json":
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_json)]
    # Plain: the rich form shows the values of local variables, secrets among them, and takes seconds.
    renderer = structlog.dev.ConsoleRenderer(
        colors=color, pad_event_to=32, sort_keys=False, exception_formatter=structlog.dev.plain_traceback
    )
    return [_cleaned, renderer]


def _json(event: MutableMapping[str, Any], **options: Any) -> str:  # noqa: ANN401 - json.dumps' own
    import json

    return escape_in_json(json.dumps(event, ensure_ascii=False, **options))


def _cleaned(_logger: object, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {key: clean(value) if isinstance(value, str) else value for key, value in event.items()}
