"""Waits for the signal that ends a long-running command."""

import signal
import threading
from types import FrameType
from typing import Final

_ENDING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class EndingSignals:
    """SIGTERM, SIGINT and SIGHUP end the command gracefully; a second SIGINT ends it at once.

    Handlers and no blocked mask: that would be inherited by every program a task runs.
    """

    def __init__(self) -> None:
        """From here on they are only noted."""
        self._came = threading.Event()
        for number in _ENDING:
            signal.signal(number, self._note)

    def wait(self) -> None:
        """Blocks until one of them came."""
        self._came.wait()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self._came.set()
