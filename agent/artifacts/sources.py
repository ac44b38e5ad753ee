"""Reads artifacts from where they are: http servers, and files of this machine. What the policy forbids is not read.

Nothing of the agent's environment goes along: no proxy, no `.netrc`, no cookie of another download. A redirect is
followed by hand, since each address is asked of the policy, and the user and password of one server are not for the
next. No message says them.
"""

import contextlib
import os
import ssl
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.auth import HTTPBasicAuth

from agent.doors import ArtifactError, ArtifactsUnwanted, WantedArtifact
from agent.drivers.start_failure import is_temporary
from trueup.models.artifacts import DEFAULT_PORTS, ArtifactPolicy, host_of, is_beneath, refusal

CHUNK: Final = 256 * 1024
MAX_REDIRECTS: Final = 10
_PASSING: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_ADVICE: Final[dict[int, str]] = {
    HTTPStatus.UNAUTHORIZED: "write https://USER:${secret:NAME}@… where it asks for a password",
    HTTPStatus.FORBIDDEN: "write https://USER:${secret:NAME}@… where it asks for a password",
    HTTPStatus.NOT_FOUND: "look at the source",
    HTTPStatus.GONE: "look at the source",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchLimits:
    """How long an artifact may take, and how large it may be. *silence_seconds*: between two pieces of it."""

    connect_seconds: float = 10.0
    silence_seconds: float = 60.0
    total_seconds: float = 1800.0
    total_bytes: int = 4 * 1024**3


class ArtifactSources:
    """The way to artifacts under this node's policy. Thread-safe."""

    def __init__(self, policy: ArtifactPolicy, limits: FetchLimits | None = None) -> None:
        self._policy = policy
        self.limits = limits or FetchLimits()

    def check(self, wanted: WantedArtifact) -> None:
        """ArtifactError where the policy forbids this source."""
        url = _split(wanted.source, wanted.shown)
        if url.scheme == "file":
            self._allowed_path(url, wanted.shown)
        else:
            self._check_address(wanted.source, wanted.shown, "")

    def chunks(self, wanted: WantedArtifact, is_unwanted: Callable[[], bool]) -> Iterator[bytes]:
        """All of it, piece by piece. ArtifactError; ArtifactsUnwanted once *is_unwanted* says so."""
        url = _split(wanted.source, wanted.shown)
        pieces = self._of_file(url, wanted) if url.scheme == "file" else self._of_server(url, wanted)
        total = 0
        for piece in pieces:
            if is_unwanted():
                raise ArtifactsUnwanted
            total += len(piece)
            self._check_size(total, wanted.shown)
            yield piece

    def _check_size(self, size: int, shown: str) -> None:
        if size > self.limits.total_bytes:
            raise ArtifactError(
                f"cannot fetch {shown}: it is larger than {self.limits.total_bytes // 1024**2} MiB"
            )

    # Files of this machine.

    def _allowed_path(self, url: SplitResult, shown: str) -> str:
        """Where the file is once its links are resolved."""
        if url.netloc not in {"", "localhost"}:
            raise ArtifactError(f"{shown} names another machine; write file:///path")
        if not self._policy.paths:
            raise _forbidden("file: artifacts are not allowed", "paths")
        path = unquote(url.path)
        if "\0" in path:
            raise ArtifactError(f"{shown} is no path; look at the source")
        real = os.path.realpath(path)
        if not is_beneath(real, self._real_paths):
            raise _forbidden(f"artifacts from the path {real} are not allowed", "paths")
        return real

    @property
    def _real_paths(self) -> list[str]:
        return [os.path.realpath(path) for path in self._policy.paths]

    def _of_file(self, url: SplitResult, wanted: WantedArtifact) -> Iterator[bytes]:
        real = self._allowed_path(url, wanted.shown)
        try:
            # Not blocking: a pipe that was put there is opened, seen to be one, and left.
            opened = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(opened, "rb") as stream:
                # The name led here a moment ago; what counts is what is open now.
                if not is_beneath(str(Path(f"/proc/self/fd/{opened}").readlink()), self._real_paths):
                    raise _forbidden(f"artifacts from the path {real} are not allowed", "paths")
                if not stat.S_ISREG(os.fstat(opened).st_mode):
                    raise ArtifactError(f"cannot fetch {wanted.shown}: it is no file")
                while piece := stream.read(CHUNK):
                    yield piece
        except OSError as error:
            raise ArtifactError(
                f"cannot fetch {wanted.shown}: {error.strerror}", temporary=is_temporary(error.errno or 0)
            ) from error

    # Servers.

    def _check_address(self, address: str, shown: str, before: str) -> None:
        why = refusal(address, self._policy)
        if why is not None:
            raise _forbidden(f"{before}{why}", "hosts", shown)

    def _of_server(self, url: SplitResult, wanted: WantedArtifact) -> Iterator[bytes]:
        with requests.Session() as session:
            session.trust_env = False
            session.mount("https://", _SystemRoots())
            session.headers["Accept-Encoding"] = "identity"
            session.headers["User-Agent"] = "trueup"
            try:
                with contextlib.closing(self._answer(session, url, wanted)) as answer:
                    self._check_size(_promised(answer), wanted.shown)
                    # As it comes, whatever encoding a server says an archive has: the checksum is of that.
                    while piece := answer.raw.read1(CHUNK, decode_content=False):
                        yield piece
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
                raise _away(error, wanted.shown) from None
            except (ValueError, UnicodeError):
                raise ArtifactError(
                    f"cannot fetch {wanted.shown}: this is no address; look at the source"
                ) from None

    def _answer(
        self, session: requests.Session, url: SplitResult, wanted: WantedArtifact
    ) -> requests.Response:
        credentials = _credentials(url)
        first = _origin(url)
        before = ""
        for _ in range(MAX_REDIRECTS + 1):
            address = url._replace(netloc=url.netloc.rpartition("@")[2], fragment="").geturl()
            self._check_address(address, wanted.shown, before)
            answer = session.get(
                address,
                auth=credentials if _origin(url) == first else None,
                stream=True,
                allow_redirects=False,
                timeout=(self.limits.connect_seconds, self.limits.silence_seconds),
            )
            target = answer.headers.get("Location")
            if answer.status_code not in _REDIRECTS or target is None:
                return _good(answer, wanted.shown, url)
            answer.close()
            url = urlsplit(urljoin(address, target))
            if url.scheme not in DEFAULT_PORTS:
                raise ArtifactError(f"cannot fetch {wanted.shown}: it redirects to what is no server")
            before = "it redirects to another address, and "
        raise ArtifactError(f"cannot fetch {wanted.shown}: it redirects more than {MAX_REDIRECTS} times")


class _SystemRoots(HTTPAdapter):
    """Trusts whom the machine trusts, beside the usual authorities: that is where a company puts its own."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as requests has it
        super().init_poolmanager(*args, ssl_context=ssl.create_default_context(), **kwargs)


def _split(source: str, shown: str) -> SplitResult:
    try:
        url = urlsplit(source)
        _ = url.port
    except ValueError:
        raise ArtifactError(f"{shown} is no address that can be read; look at the source") from None
    return url


def _origin(url: SplitResult) -> tuple[str, str, int | None]:
    return url.scheme, (url.hostname or "").lower(), url.port or DEFAULT_PORTS.get(url.scheme)


def _credentials(url: SplitResult) -> HTTPBasicAuth | None:
    if url.username is None:
        return None
    return HTTPBasicAuth(unquote(url.username).encode(), unquote(url.password or "").encode())


def _promised(answer: requests.Response) -> int:
    length = answer.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else 0


def _good(answer: requests.Response, shown: str, url: SplitResult) -> requests.Response:
    status = answer.status_code
    if status == HTTPStatus.OK:
        return answer
    answer.close()
    words = f"cannot fetch {shown}: {host_of(url)} answered {status}"
    advice = _ADVICE.get(status)
    raise ArtifactError(
        f"{words}; {advice}" if advice else words, temporary=status >= 500 or status in _PASSING
    )


def _forbidden(what: str, key: str, shown: str = "") -> ArtifactError:
    where = f"cannot fetch {shown}: " if shown else ""
    return ArtifactError(
        f"{where}{what} on this node: list it under artifacts.{key} in the agent's configuration"
    )


def _away(error: Exception, shown: str) -> ArtifactError:
    """Why a server gave nothing, or not all. None of it quotes an address: those of libraries show passwords."""
    causes = list(_causes(error))
    untrusted = next((one for one in causes if isinstance(one, ssl.SSLCertVerificationError)), None)
    if untrusted is not None:
        return ArtifactError(
            f"cannot fetch {shown}: its server's certificate is not trusted: {untrusted.verify_message}; "
            "add its authority to those of this machine"
        )
    if any(
        isinstance(one, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema) for one in causes
    ):
        return ArtifactError(f"cannot fetch {shown}: this is no address; look at the source")
    return ArtifactError(f"cannot fetch {shown}: {_why_away(causes)}", temporary=True)


def _why_away(causes: list[BaseException]) -> str:
    if any(isinstance(one, urllib3.exceptions.NameResolutionError) for one in causes):
        return "its host's name is not known"
    # Before the time-outs: what a library calls one may be a refusal.
    for one in causes:
        if isinstance(one, OSError) and isinstance(one.strerror, str):
            return one.strerror
    if any(
        isinstance(one, TimeoutError | requests.Timeout | urllib3.exceptions.TimeoutError) for one in causes
    ):
        return "its server did not answer in time"
    if any(isinstance(one, urllib3.exceptions.IncompleteRead) for one in causes):
        return "its server ended the answer too early"
    return "its server closed the connection"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what is behind it: libraries hand it on as an argument, a reason or a cause."""
    waiting: list[object] = [error]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, BaseException) and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [*one.args, getattr(one, "reason", None), one.__cause__, one.__context__]
