"""Copies the output of containers into the files of their tasks: one thread for each container, until its last line."""

import threading
import time
from pathlib import Path
from typing import Final

from agent.doors import DriverError
from agent.drivers.docker_engine import Engine
from agent.drivers.docker_errors import EngineRefused, NotThere
from agent.drivers.docker_output import STREAMS, ContainerOutput
from agent.drivers.docker_spec import LogTarget
from agent.drivers.docker_stream import Stream
from agent.drivers.start_failure import is_temporary

_FIRST_WAIT_SECONDS: Final = 0.1
_LONGEST_WAIT_SECONDS: Final = 2.0
_CLOSE_SECONDS: Final = 5.0


class LogFollowers:
    """The followers of all containers, by container id. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._by_container: dict[str, LogFollower] = {}
        self._closed = False

    def prepare(self, target: LogTarget, task: str, attempt: int, container: str) -> None:
        """Notes, before a container is started, where its output begins. DriverError if its files cannot be made.

        Here alone the folder is made: output of what was removed must not bring it back.
        """
        with self._lock:
            if container not in self._by_container:
                _open(target, task, attempt, container, make_folder=True).close()

    def follow(self, target: LogTarget, task: str, attempt: int, container: str) -> None:
        """Has the container's output followed; a repeat changes nothing. DriverError if its files cannot be made."""
        with self._lock:
            if self._closed or container in self._by_container:
                return
            output = _open(target, task, attempt, container)
            follower = LogFollower(self._engine, container, output)
            self._by_container[container] = follower
        follower.begin()

    def drained(self, container: str, seconds: float) -> bool:
        """Whether all output of an ended container is in its files; waits that long for it."""
        with self._lock:
            follower = self._by_container.get(container)
        return follower is None or follower.done.wait(seconds)

    def forget(self, container: str) -> None:
        """The container is gone, and its follower with it."""
        with self._lock:
            follower = self._by_container.pop(container, None)
        if follower is not None:
            follower.interrupt()

    def close(self) -> None:
        """Ends all threads; the next agent goes on where they were."""
        with self._lock:
            self._closed = True
            followers = list(self._by_container.values())
        for follower in followers:
            follower.interrupt()
        deadline = time.monotonic() + _CLOSE_SECONDS
        for follower in followers:
            follower.join(max(0.0, deadline - time.monotonic()))


class LogFollower:
    """Follows one container. *done* is set once it ended and all of its output is written, or nothing can be had."""

    def __init__(self, engine: Engine, container: str, output: ContainerOutput) -> None:
        self.done = threading.Event()
        self._engine = engine
        self._container = container
        self._output = output
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._stream: Stream | None = None
        self._thread = threading.Thread(target=self._run, name=f"logs-{container[:12]}", daemon=True)

    def begin(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def interrupt(self) -> None:
        """Has the thread end soon."""
        self._stop.set()
        with self._lock:
            if self._stream is not None:
                self._stream.interrupt()

    def join(self, seconds: float) -> None:
        """Waits for the thread's end, at most that long."""
        self._thread.join(seconds)

    def _run(self) -> None:
        wait_seconds = _FIRST_WAIT_SECONDS
        with self._output:
            while not self._stop.is_set():
                before = time.monotonic()
                try:
                    if self._copy():
                        break
                except (NotThere, EngineRefused) as refused:
                    # Gone, or its log cannot be read: there is nothing more to be had once it does not run.
                    if isinstance(refused, NotThere) or not self._runs():
                        break
                except DriverError:
                    pass
                if time.monotonic() - before > _LONGEST_WAIT_SECONDS:
                    wait_seconds = _FIRST_WAIT_SECONDS
                self._stop.wait(wait_seconds)
                wait_seconds = min(wait_seconds * 2, _LONGEST_WAIT_SECONDS)
            self._output.save()
        if not self._stop.is_set():
            self.done.set()

    def _copy(self) -> bool:
        """Copies what there is and comes; whether that was the last of it.

        The stream of a running container ends with it, or with the engine. What it may have left out at its end is
        read after that, from a container that does not run.
        """
        ran = self._runs()
        self._output.read_again()
        params = {
            "stdout": "1",
            "stderr": "1",
            "timestamps": "1",
            "follow": "1" if ran else "0",
            "since": self._output.since,
        }
        path = f"/containers/{self._container}/logs"
        with self._engine.stream("GET", path, params, silence_seconds=None) as stream:
            with self._lock:
                self._stream = stream
            try:
                if self._stop.is_set():
                    return False
                for kind, piece in stream.frames():
                    if kind in STREAMS:
                        self._output.take(STREAMS[kind], piece)
            finally:
                with self._lock:
                    self._stream = None
        self._output.save()
        return not ran

    def _runs(self) -> bool:
        """Whether it does, as far as the engine says: one that it has no more does not."""
        try:
            return self._engine.inspect(self._container).state.running
        except NotThere:
            return False
        except DriverError:
            return True


def _open(
    target: LogTarget, task: str, attempt: int, container: str, *, make_folder: bool = False
) -> ContainerOutput:
    try:
        if make_folder:
            Path(target.folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        return ContainerOutput(target, task, attempt, container)
    except OSError as error:
        raise DriverError(
            f"cannot write the logs of task {task} in {target.folder}: {error.strerror}",
            temporary=is_temporary(error.errno or 0),
        ) from None
