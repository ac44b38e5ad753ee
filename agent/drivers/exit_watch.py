"""Sees processes end the moment they do: one thread over the kernel's descriptors of all of them, and no polling."""

import contextlib
import os
import select
import threading
from collections.abc import Callable, Hashable


class ExitWatch:
    """Calls *on_end* with a process's key once it has ended, from a thread of its own. Thread-safe."""

    def __init__(self, on_end: Callable[[Hashable], None]) -> None:
        self._on_end = on_end
        self._lock = threading.Lock()
        self._keys: dict[int, Hashable] = {}
        self._descriptors: dict[Hashable, int] = {}
        self._epoll = select.epoll()
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._epoll.register(self._stop, select.EPOLLIN)
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, key: Hashable, descriptor: int) -> None:
        """Watches a process and owns its *descriptor* from here on. A key that is watched already keeps its own."""
        with self._lock:
            if key in self._descriptors or self._closed:
                os.close(descriptor)
                return
            self._keys[descriptor] = key
            self._descriptors[key] = descriptor
            self._epoll.register(descriptor, select.EPOLLIN)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="exit-watch", daemon=True)
                self._thread.start()

    def watches(self, key: Hashable) -> bool:
        """Whether the process of that key is watched and its end was not yet seen."""
        with self._lock:
            return key in self._descriptors

    def close(self) -> None:
        """Ends the thread; nothing is called any more."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            os.eventfd_write(self._stop, 1)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        for descriptor in (*self._keys, self._stop):
            os.close(descriptor)
        self._epoll.close()

    def _run(self) -> None:
        while True:
            for descriptor, _ in self._epoll.poll():
                if descriptor == self._stop:
                    return
                self._take_end(descriptor)

    def _take_end(self, descriptor: int) -> None:
        with self._lock:
            key = self._keys.pop(descriptor)
            del self._descriptors[key]
            self._epoll.unregister(descriptor)
        # Where the agent is the first process of a container, shims whose spawner ended are its children.
        with contextlib.suppress(OSError):
            os.waitid(os.P_PIDFD, descriptor, os.WEXITED | os.WNOHANG)
        os.close(descriptor)
        self._on_end(key)
