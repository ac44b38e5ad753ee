"""How often a forge's nudges may make the source look: many of them are one."""

import threading
from collections.abc import Callable
from typing import Final

NUDGE_SECONDS: Final = 1.0
"""Polls that nudges cause are at least so far apart: many pushes are one poll."""
AT_ONCE: Final = 4
"""So many bodies are read at once, whoever sends them: heartbeats need the threads."""


class Paced:
    """Calls *action* at once; what comes within *seconds* after it is made up once, at their end."""

    def __init__(self, action: Callable[[], None], seconds: float = NUDGE_SECONDS) -> None:
        self._action = action
        self._seconds = seconds
        self._lock = threading.Lock()
        self._rests = False
        self._asked = False

    def __call__(self) -> None:
        with self._lock:
            if self._rests:
                self._asked = True
                return
            self._rest()
        self._action()

    def _rest(self) -> None:
        self._rests = True
        timer = threading.Timer(self._seconds, self._rested)
        timer.daemon = True
        timer.start()

    def _rested(self) -> None:
        with self._lock:
            asked, self._asked, self._rests = self._asked, False, False
            if asked:
                self._rest()
        if asked:
            self._action()
