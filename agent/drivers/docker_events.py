"""Hears from the engine that a container may have changed. For speed alone: what is true is asked for."""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

import msgspec

from agent.doors import DriverError
from agent.drivers.docker_engine import Engine
from agent.drivers.docker_owner import CLUSTER, Owner
from agent.drivers.docker_spec import ALLOCATION
from agent.drivers.docker_stream import Stream
from trueup.models.ids import AllocationId

_FIRST_WAIT_SECONDS: Final = 0.1
_LONGEST_WAIT_SECONDS: Final = 2.0
_SILENCE_SECONDS: Final = 300.0
"""A connection without a word for that long is made anew, and all is looked at once: it may be dead."""
_CLOSE_SECONDS: Final = 5.0
_NEWS: Final = ("start", "die", "oom", "destroy", "pause", "unpause", "health_status")


class EventWatch:
    """One thread over the engine's events of containers of *owner*.

    Calls *changed* with the allocation of each, and *connected* whenever it begins to hear: before that, anything may
    have happened; *lost* when it hears nothing any more, or could not begin to. Where there is no engine, it tries
    again, less and less often, down to every 2 s.
    """

    def __init__(
        self,
        engine: Engine,
        owner: Owner,
        *,
        changed: Callable[[AllocationId], None],
        connected: Callable[[], None],
        lost: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._owner = owner
        self._changed = changed
        self._connected = connected
        self._lost = lost
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._stream: Stream | None = None
        self._thread = threading.Thread(target=self._run, name="docker-events", daemon=True)

    def begin(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def close(self) -> None:
        """Ends the thread; nothing is called any more."""
        self._stop.set()
        with self._lock:
            if self._stream is not None:
                self._stream.interrupt()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        wait_seconds = _FIRST_WAIT_SECONDS
        while not self._stop.is_set():
            before = time.monotonic()
            with suppress(DriverError):
                self._listen()
            self._lost()
            if time.monotonic() - before > _LONGEST_WAIT_SECONDS:
                wait_seconds = _FIRST_WAIT_SECONDS
            self._stop.wait(wait_seconds)
            wait_seconds = min(wait_seconds * 2, _LONGEST_WAIT_SECONDS)

    def _listen(self) -> None:
        labels = [f"{CLUSTER}={self._owner.cluster}"]
        filters = {"type": ["container"], "label": labels, "event": list(_NEWS)}
        params = {"filters": msgspec.json.encode(filters).decode()}
        with self._engine.stream("GET", "/events", params, silence_seconds=_SILENCE_SECONDS) as stream:
            with self._lock:
                self._stream = stream
            try:
                if self._stop.is_set():
                    return
                self._connected()
                for message in stream.messages():
                    allocation_id = self._allocation_of(message)
                    if allocation_id and not self._stop.is_set():
                        self._changed(AllocationId(allocation_id))
            finally:
                with self._lock:
                    self._stream = None

    def _allocation_of(self, message: Mapping[str, object]) -> str:
        actor = message.get("Actor")
        labels = actor.get("Attributes") if isinstance(actor, dict) else None
        if not isinstance(labels, dict) or not self._owner.owns(labels):
            return ""
        found = labels.get(ALLOCATION)
        return found if isinstance(found, str) else ""
