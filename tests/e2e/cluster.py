"""Real trueup processes for end-to-end tests: started as a user starts them, asked as a program asks them."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import requests

TRUEUP: Final = Path(sys.executable).with_name("trueup")
READY_SECONDS: Final = 60.0
PATIENCE_SECONDS: Final = 60.0
_URL: Final = re.compile(r"https?://[^\s,;]+")

T = TypeVar("T")
Json = dict[str, Any]


def trueup(
    *arguments: str | Path,
    cwd: Path,
    expect: int | None = 0,
    stdin: str | None = None,
    extra_environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs one command to its end; *expect* is its exit code (None: any)."""
    done = subprocess.run(
        [str(TRUEUP), *map(str, arguments)],
        cwd=cwd,
        env={**environment(), **(extra_environment or {})},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert expect is None or done.returncode == expect, (
        f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def environment() -> dict[str, str]:
    """What a user's shell gives, without the developer's own settings."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("TRUEUP_", "GIT_"))}
    return {**kept, "HOME": kept.get("HOME", "/root"), "PYTHONWARNINGS": "ignore"}


class Process:
    """A long-running trueup command, its output in files beside it."""

    def __init__(
        self,
        *arguments: str | Path,
        cwd: Path,
        name: str = "",
        extra_environment: Mapping[str, str] | None = None,
        through: Sequence[str] = (),
    ) -> None:
        """Starts it and waits for its ready line. *through* is a command that runs the one behind it."""
        name = name or str(arguments[0])
        self.out, self.err = cwd / f"{name}.out", cwd / f"{name}.err"
        with self.out.open("ab") as out, self.err.open("ab") as err:
            begin = out.tell()
            self.popen = subprocess.Popen(
                [*through, str(TRUEUP), *map(str, arguments)],
                cwd=cwd,
                env={**environment(), **(extra_environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        self.ready_line = eventually(lambda: self._ready_line(begin), READY_SECONDS, self.output)
        self.url = _URL.findall(self.ready_line)[0]

    @property
    def pid(self) -> int:
        return self.popen.pid

    def output(self) -> str:
        return f"{self.out.read_text()}\n{self.err.read_text()}"

    def terminate(self) -> int:
        """SIGTERM, and the exit code."""
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(30)

    def kill(self) -> None:
        """SIGKILL: it ends without any goodbye."""
        self.popen.kill()
        self.popen.wait(30)

    def end(self) -> None:
        """Ends it, however it does."""
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()

    def _ready_line(self, begin: int) -> str | None:
        if self.popen.poll() is not None:
            raise AssertionError(f"ended with {self.popen.returncode} before it was ready\n{self.output()}")
        lines = self.out.read_bytes()[begin:].decode().splitlines()
        return next((line for line in lines if "ready" in line), None)


class Api:
    """The control plane's API, as a program uses it."""

    def __init__(self, url: Callable[[], str], output: Callable[[], str]) -> None:
        self._url = url
        self._output = output

    def get(self, path: str, **params: str) -> Any:
        answer = requests.get(self._url() + path, params=params, timeout=30)
        if answer.status_code != 200:
            raise requests.HTTPError(f"{path}: {answer.status_code} {answer.text}")
        return answer.json()

    def index(self) -> int:
        return int(requests.get(f"{self._url()}/status", timeout=30).headers["X-Index"])

    def job(self, name: str) -> Json:
        found: Json = self.get(f"/jobs/{name}")
        return found

    def status(self) -> Json:
        found: Json = self.get("/status")
        return found

    def allocations(self, job: str = "", *, wanted: bool = True) -> list[Json]:
        """Allocations of a job by name; only those wanted to run, unless told otherwise."""
        params = {"limit": "1000", **({"job": job} if job else {})}
        found = self.get("/allocations", **params)["items"]
        return sorted(
            (one for one in found if not wanted or one["desired_status"] == "run"),
            key=lambda one: str(one["name"]),
        )

    def running(self, job: str) -> dict[str, tuple[int, str]]:
        """Of each running allocation of a job: the pid of its first task, and when that was started."""
        found = {}
        for one in self.allocations(job):
            if one["client_status"] == "running":
                task = next(iter(one["tasks"].values()))
                found[one["name"]] = (task["pid"], task["started_at"])
        return found

    def until(self, condition: Callable[[], T | None], seconds: float = PATIENCE_SECONDS) -> T:
        """Waits until *condition* holds; what it asks may be away, or not be there yet."""

        def ask() -> T | None:
            try:
                return condition()
            except requests.RequestException:
                return None

        return eventually(ask, seconds, lambda: f"{self._picture()}\n{self._output()}")

    def until_running(
        self, job: str, count: int, seconds: float = PATIENCE_SECONDS
    ) -> dict[str, tuple[int, str]]:
        """Waits until exactly *count* of a job run and the job is Healthy."""

        def settled() -> dict[str, tuple[int, str]] | None:
            found = self.running(job)
            held = self.job(job)
            healthy = held["health"] == "Healthy" and len(self.allocations(job)) == count
            return (
                found if healthy and len(found) == count and all(pid for pid, _ in found.values()) else None
            )

        return self.until(settled, seconds)

    def _picture(self) -> str:
        try:
            return json.dumps(
                {"status": self.status(), "allocations": self.allocations(wanted=False)}, indent=1
            )
        except requests.RequestException as error:
            return str(error)


class Specs:
    """A folder of specs, changed as an editor changes it: whole files by rename."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.new")
        fresh.write_text(textwrap.dedent(text).lstrip("\n"))
        fresh.rename(path)

    def remove(self, name: str) -> None:
        (self.folder / name).unlink()


class Up:
    """`trueup up` in a folder of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.options = options
        self.specs = Specs(folder / "specs")
        self.process: Process | None = None
        self.api = Api(lambda: self.running.url, lambda: self.running.output())  # noqa: PLW0108 - it runs only later

    @property
    def running(self) -> Process:
        assert self.process is not None
        return self.process

    def start(self) -> None:
        self.process = Process(
            "up", "--bind", "127.0.0.1:0", "--removal-settle", "300ms", *self.options, cwd=self.folder
        )

    def command(self, *arguments: str, expect: int | None = 0) -> str:
        """A command against this control plane; its standard output."""
        address = ["--address", self.running.url]
        return trueup(*arguments, *address, cwd=self.folder, expect=expect).stdout

    def end(self) -> None:
        """Ends all of it, tasks too."""
        if self.process is not None:
            self.process.end()
        trueup("down", "--timeout", "20s", cwd=self.folder, expect=None)


def eventually(
    condition: Callable[[], T | None], seconds: float = PATIENCE_SECONDS, picture: Callable[[], str] = str
) -> T:
    """Asks until there is an answer other than None and False; fails with a picture of what was instead."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found is not None and found is not False:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s:\n{picture()}")
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Whether a process of that id runs (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in {"Z", "X"}


def names(running: Mapping[str, object]) -> Sequence[str]:
    """The names, sorted."""
    return sorted(running)
