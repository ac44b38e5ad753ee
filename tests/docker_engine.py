"""A Docker engine for tests: a `dockerd` of our own beside whatever runs here, with one small image and no registry.

`docker_engine` is one engine for the whole run, shared by all pytest-xdist workers: tests keep apart by their own
cluster label, as two clusters on one engine do. A test that kills or restarts an engine makes an `Engine` for itself.
"""

import contextlib
import fcntl
import hashlib
import io
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import docker
import docker.errors
import psutil
import pytest

from tests.require import DOCKER_HOST, require, unavailable

IMAGE: Final = "trueup-test:1"

_START_TRIES: Final = 4
_START_SECONDS: Final = 20.0
_STOP_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.05


class EngineError(Exception):
    """The engine did not come up, or did not end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerEngine:
    """An engine that runs. *host* is what `DOCKER_HOST` wants; *image* is busybox, its default command a shell."""

    host: str
    image: str


class Engine:
    """One `dockerd` with all its state under *folder*, which must have a short path: sockets allow 108 bytes.

    `start` and `stop` may be repeated. After `kill`, containers run on until the next `start`, which stops them
    unless *live_restore*. Each has a bridge of its own, without firewall rules: two engines on `docker0` flush each
    other's, and one told to have no bridge removes `docker0` from under the other.
    """

    def __init__(self, folder: Path, *, live_restore: bool = False) -> None:
        self._folder = folder
        self._live_restore = live_restore
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"unix://{self._folder}/docker.sock"

    @property
    def pid(self) -> int | None:
        """The running dockerd's, also when another process started it; None if none runs."""
        try:
            pid = int((self._folder / "pid").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        # A pid is reused: this one is ours only if it was told to listen on our socket.
        return pid if self.host.encode() in command else None

    def start(self) -> None:
        """Returns when the engine answers and has the image. EngineError with its log's end if it never does."""
        for _ in range(_START_TRIES):
            if self.pid is None:
                self._spawn()
            if self._answers():
                import_image(self.host)
                return
            # After a kill, the first start waits in vain for the old containerd; the next finds it gone.
            self.stop()
        log = (self._folder / "log").read_text(errors="replace")
        raise EngineError(f"dockerd did not come up {_START_TRIES} times; its log ends:\n{log[-2000:]}")

    def kill(self) -> None:
        """As a crash: at once, with no goodbye to containers."""
        self._end(signal.SIGKILL)
        self._await_containerd()

    def stop(self) -> None:
        """In order; ends its containerd too, and the containers unless *live_restore*."""
        self._end(signal.SIGTERM)

    def leave(self) -> None:
        """Lets it run on, for another process to end; Python would warn of a child that nobody waited for."""
        if self._process is not None:
            self._process.returncode = 0
            self._process = None

    def destroy(self) -> None:
        """Stops it and removes every trace under *folder*. Containers get no time: nobody reads their end."""
        if self.pid is not None:
            with (
                contextlib.suppress(docker.errors.DockerException),
                contextlib.closing(client(self.host)) as engine,
            ):
                for container in engine.containers(all=True, quiet=True):
                    engine.remove_container(container["Id"], force=True)
        self.stop()
        subprocess.run(["ip", "link", "delete", self._bridge], check=False, capture_output=True)
        self._unmount()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _unmount(self) -> None:
        """A dockerd leaves its network namespace mounted, and one that was killed its data folder as well."""
        mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for path in reversed(mounted):
            if Path(path).is_relative_to(self._folder):
                subprocess.run(["umount", "--lazy", path], check=False, capture_output=True)

    @property
    def _bridge(self) -> str:
        """The name of its bridge; the kernel allows 15 characters."""
        return f"tu-{hashlib.sha256(os.fsencode(self._folder)).hexdigest()[:12]}"

    def _make_bridge(self) -> None:
        interfaces = psutil.net_if_addrs()
        if self._bridge in interfaces:
            return
        taken = {address.address.rpartition(".")[0] for held in interfaces.values() for address in held}
        # Begun at a place of its own, so that two engines which start at once do not choose the same.
        first = int(self._bridge[-2:], 16)
        subnet = next(net for n in range(256) if (net := f"10.213.{(first + n) % 256}") not in taken)
        for command in (
            ("link", "add", self._bridge, "type", "bridge"),
            ("address", "add", f"{subnet}.1/24", "dev", self._bridge),
            ("link", "set", self._bridge, "up"),
        ):
            subprocess.run(["ip", *command], check=True, capture_output=True)

    def _spawn(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._make_bridge()
        (self._folder / "pid").unlink(missing_ok=True)
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    "dockerd",
                    f"--data-root={self._folder}/data",
                    f"--exec-root={self._folder}/exec",
                    f"--host={self.host}",
                    f"--pidfile={self._folder}/pid",
                    f"--bridge={self._bridge}",
                    "--iptables=false",
                    "--ip-masq=false",
                    *(("--live-restore",) if self._live_restore else ()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C ends pytest, which ends the engine in order.
                start_new_session=True,
            )

    def _answers(self) -> bool:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and (self._process is None or self._process.poll() is None):
            # The SDK leaves a socket open that could not connect, and pytest makes that warning a failure.
            with (
                contextlib.suppress(docker.errors.DockerException, OSError),
                self._listening(),
                contextlib.closing(client(self.host)) as engine,
            ):
                engine.version()
                return True
            time.sleep(_POLL_SECONDS)
        return False

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """OSError if nobody listens on the engine's socket."""
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(f"{self._folder}/docker.sock")
        yield

    def _await_containerd(self) -> None:
        """It dies with its dockerd. As a zombie it counts as running, and a new dockerd would wait 15 s for it."""
        record = self._folder / "exec" / "containerd" / "containerd.pid"
        deadline = time.monotonic() + _STOP_SECONDS
        while time.monotonic() < deadline:
            try:
                if psutil.Process(int(record.read_text())).status() == psutil.STATUS_ZOMBIE:
                    break
            except (OSError, ValueError, psutil.NoSuchProcess):
                break
            time.sleep(_POLL_SECONDS)
        record.unlink(missing_ok=True)

    def _end(self, how: signal.Signals) -> None:
        pid = self.pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how)
        if self._process is not None:
            self._process.wait(_STOP_SECONDS)
            self._process = None
        deadline = time.monotonic() + _STOP_SECONDS
        while self.pid is not None:
            if time.monotonic() > deadline:
                raise EngineError(f"dockerd {pid} does not end on {how.name}")
            time.sleep(_POLL_SECONDS)


def client(host: str) -> docker.APIClient:
    """The SDK's low-level client on *host*; the caller closes it."""
    return docker.APIClient(base_url=host, version="auto", timeout=10)


def import_image(host: str) -> None:
    """Gives the engine `IMAGE` unless it has it: busybox with all its applets, made here from the static binary."""
    with contextlib.closing(client(host)) as engine:
        if not engine.images(name=IMAGE, quiet=True):
            name, tag = IMAGE.split(":")
            engine.import_image_from_data(
                _root_filesystem(), repository=name, tag=tag, changes=["ENV PATH=/bin", 'CMD ["/bin/sh"]']
            )


def _root_filesystem() -> bytes:
    busybox = shutil.which("busybox")
    if busybox is None:
        unavailable("docker", "busybox is not installed")
    listed = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for folder, mode in (("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777)):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        _add_file(tar, "bin/busybox", Path(busybox).read_bytes(), mode=0o755)
        users = b"root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"
        _add_file(tar, "etc/passwd", users, mode=0o644)
        # busybox lists itself; a link of that name would replace the program by a loop, and every exec end in 127.
        for applet in sorted(set(listed) - {"busybox"}):
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
    return archive.getvalue()


def _add_file(tar: tarfile.TarFile, name: str, content: bytes, *, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))


@pytest.fixture(scope="session")
def docker_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerEngine]:
    """The run's engine: the one that `TRUEUP_TEST_DOCKER_HOST` names, else our own, ended with the last worker."""
    require("docker")
    given = os.environ.get(DOCKER_HOST)
    if given:
        import_image(given)
        yield DockerEngine(host=given, image=IMAGE)
        return
    with _shared_engine(_run_folder(tmp_path_factory)) as engine:
        yield engine


def _run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all workers of this run, of which each has its temporary folder in a common one."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@contextlib.contextmanager
def _shared_engine(run_folder: Path) -> Iterator[DockerEngine]:
    """Starts the engine for whoever comes first and ends it with whoever leaves last.

    Each user holds a shared lock on one file, so a worker that crashed does not count. Whoever starts or ends the
    engine holds another lock, alone.
    """
    with (
        (run_folder / "docker-users").open("a") as users,
        (run_folder / "docker-engine").open("a+") as shared,
    ):
        with _locked(shared.fileno()):
            engine = _engine_of(shared)
            try:
                engine.start()
            except EngineError as error:
                unavailable("docker", str(error))
            fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield DockerEngine(host=engine.host, image=IMAGE)
        finally:
            with _locked(shared.fileno()):
                fcntl.flock(users, fcntl.LOCK_UN)
                try:
                    fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    engine.leave()
                else:
                    engine.destroy()
                    shared.truncate(0)


def _engine_of(shared: io.TextIOWrapper) -> Engine:
    """The engine whose folder *shared* names, or a new one, which is then written there."""
    shared.seek(0)
    folder = shared.read()
    if not folder:
        folder = tempfile.mkdtemp(prefix="tu-", dir="/tmp")
        shared.write(folder)
        shared.flush()
    return Engine(Path(folder))


@contextlib.contextmanager
def _locked(file: int) -> Iterator[None]:
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)
