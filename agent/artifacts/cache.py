"""Artifacts kept by their checksum, so that a second allocation or a new agent fetches nothing.

`FOLDER/<algorithm>-<digest>` is whole and checked: it was written under another name, flushed to the disk and renamed.
What is being fetched has a name that no checksum has, and goes with the agent that fetched it. Who waits for the same
source waits for one download; it is given up when nobody waits for it any more.
"""

import contextlib
import errno
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, Protocol

import structlog

from agent.doors import ArtifactError, ArtifactsUnwanted, WantedArtifact
from agent.drivers.start_failure import is_temporary

CHUNK: Final = 1024 * 1024
LOOK_SECONDS: Final = 0.2
"""How soon a start that waits sees that it is not wanted any more."""
_TRIES: Final = 3
"""How often what was fetched may be gone again before it is read: dropped for room, or damaged."""
_PART: Final = "part-"
_log = structlog.stdlib.get_logger("trueup.agent")


class Fetch(Protocol):
    """Where what is not kept comes from."""

    def chunks(self, wanted: WantedArtifact, is_unwanted: Callable[[], bool]) -> Iterator[bytes]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheLimits:
    """How much is kept, and how long after its last use; *wait_seconds*: how long a start waits for a download."""

    total_bytes: int = 10 * 1024**3
    age_seconds: float = 30 * 86_400.0
    wait_seconds: float = 1800.0


@dataclass(slots=True)
class _Download:
    """One that is under way, for *waiting* starts."""

    number: int
    begun_at: float
    waiting: int = 0
    is_done: bool = False
    is_given_up: bool = False
    error: ArtifactError | None = None


@dataclass(slots=True)
class _Downloads:
    """Those under way, by what is fetched from where."""

    by_source: dict[tuple[str, str], _Download] = field(default_factory=dict)
    begun: int = 0


class ArtifactCache:
    """The folder, which is made when it is needed. Thread-safe; one agent a folder."""

    def __init__(self, folder: Path, fetch: Fetch, limits: CacheLimits | None = None) -> None:
        """Drops what an earlier agent did not finish, and what is too old or too much."""
        self._folder = folder
        self._fetch = fetch
        self._limits = limits or CacheLimits()
        self._changed = threading.Condition()
        self._downloads = _Downloads()
        self._is_closed = False
        for part in folder.glob(f"{_PART}*"):
            with contextlib.suppress(OSError):
                part.unlink()
        self.clean_up()

    def open(
        self, wanted: WantedArtifact, downloads: Callable[[str], None], is_unwanted: Callable[[], bool]
    ) -> BinaryIO:
        """The whole artifact, checked, open at its beginning; fetched if it is not kept. ArtifactError,
        ArtifactsUnwanted.
        """
        for _ in range(_TRIES):
            kept = self._kept(wanted.checksum)
            if kept is not None:
                return kept
            downloads(wanted.shown)
            self._wait(wanted, is_unwanted)
        raise ArtifactError(
            f"{wanted.shown} was fetched and does not stay on this node's disk", temporary=True
        )

    def clean_up(self) -> None:
        """Drops what was not used for long, and the least recently used of what is too much."""
        self._keep(self._limits.total_bytes)

    def close(self) -> None:
        """Gives up what is being fetched."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _kept(self, checksum: str) -> BinaryIO | None:
        path = self._path(checksum)
        try:
            opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _failure(error) from error
        stream = os.fdopen(opened, "rb")
        try:
            digest = _hasher(checksum)
            while piece := stream.read(CHUNK):
                digest.update(piece)
            if digest.hexdigest() == checksum.partition(":")[2]:
                # What was used last goes last.
                os.utime(opened)
                stream.seek(0)
                return stream
        except OSError as error:
            stream.close()
            raise _failure(error) from error
        stream.close()
        _log.warning("a kept artifact was damaged", file=str(path))
        path.unlink(missing_ok=True)
        return None

    def _wait(self, wanted: WantedArtifact, is_unwanted: Callable[[], bool]) -> None:
        key = (wanted.checksum, wanted.source)
        with self._changed:
            download = self._downloads.by_source.get(key) or self._begin(key, wanted)
            download.waiting += 1
            try:
                while not download.is_done:
                    if self._is_closed or is_unwanted():
                        raise ArtifactsUnwanted
                    if time.monotonic() - download.begun_at > self._limits.wait_seconds:
                        minutes = self._limits.wait_seconds / 60
                        raise ArtifactError(
                            f"cannot fetch {wanted.shown}: it took longer than {minutes:g} minutes",
                            temporary=True,
                        )
                    self._changed.wait(LOOK_SECONDS)
            finally:
                download.waiting -= 1
                if download.waiting == 0 and not download.is_done:
                    download.is_given_up = True
                    self._downloads.by_source.pop(key, None)
            if download.error is not None:
                raise download.error

    def _begin(self, key: tuple[str, str], wanted: WantedArtifact) -> _Download:
        self._downloads.begun += 1
        download = _Download(self._downloads.begun, time.monotonic())
        self._downloads.by_source[key] = download
        threading.Thread(
            target=self._run, args=(key, download, wanted), name=f"artifact-{download.number}", daemon=True
        ).start()
        return download

    def _run(self, key: tuple[str, str], download: _Download, wanted: WantedArtifact) -> None:
        error: ArtifactError | None = None
        try:
            self._download(download, wanted)
        except ArtifactError as failed:
            error = failed
        except ArtifactsUnwanted:
            _log.info("a download was given up", source=wanted.shown)
        except OSError as failed:
            if failed.errno in {errno.ENOSPC, errno.EDQUOT}:
                self._keep(0)
            error = _failure(failed)
        except Exception as failed:  # noqa: BLE001 - whoever waits has to hear of it
            _log.exception("a download failed", source=wanted.shown)
            error = ArtifactError(
                f"cannot fetch {wanted.shown}: unexpected {type(failed).__name__}; the agent's log says more",
                temporary=True,
            )
        self.clean_up()
        with self._changed:
            download.is_done, download.error = True, error
            if self._downloads.by_source.get(key) is download:
                del self._downloads.by_source[key]
            self._changed.notify_all()

    def _download(self, download: _Download, wanted: WantedArtifact) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = self._folder / f"{_PART}{download.number}"
        try:
            opened = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(opened, "wb") as stream:
                digest = _hasher(wanted.checksum)
                for piece in self._fetch.chunks(wanted, lambda: self._is_closed or download.is_given_up):
                    digest.update(piece)
                    stream.write(piece)
                _check(wanted, digest.hexdigest())
                stream.flush()
                os.fsync(opened)
            part.rename(self._path(wanted.checksum))
            _flush_folder(self._folder)
        finally:
            part.unlink(missing_ok=True)

    def _path(self, checksum: str) -> Path:
        algorithm, _, digest = checksum.partition(":")
        return self._folder / f"{algorithm}-{digest}"

    def _keep(self, total_bytes: int) -> None:
        """Drops files until no more than *total_bytes* and none too old is left. An open one stays readable."""
        oldest = time.time() - self._limits.age_seconds
        total = 0
        for used_at, size, path in sorted(self._files(), reverse=True):
            total += size
            if total > total_bytes or used_at < oldest:
                with contextlib.suppress(OSError):
                    path.unlink()

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        try:
            found = list(self._folder.iterdir())
        except OSError:
            # It is not made yet; or whoever wants it next says what is wrong with it.
            return
        for path in found:
            if path.name.startswith(_PART):
                continue
            with contextlib.suppress(OSError):
                status = path.lstat()
                yield status.st_mtime, status.st_size, path


def _hasher(checksum: str) -> "hashlib._Hash":
    algorithm = checksum.partition(":")[0]
    if algorithm not in {"sha256", "sha512"}:
        raise ArtifactError(f"{algorithm!r} is no kind of checksum; write sha256: or sha512:")
    return hashlib.new(algorithm)


def _check(wanted: WantedArtifact, found: str) -> None:
    algorithm, _, digest = wanted.checksum.partition(":")
    if found != digest:
        raise ArtifactError(
            f"{wanted.shown} is not what the job wants: its {algorithm} is {found}, not {digest}; "
            "if the change is meant, write its new checksum"
        )


def _failure(error: OSError) -> ArtifactError:
    return ArtifactError(
        f"cannot keep artifacts on this node: {error.strerror}", temporary=is_temporary(error.errno or 0)
    )


def _flush_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
