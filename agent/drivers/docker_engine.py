"""The engine's client: every call with a deadline, every failure one of three kinds, every long answer interruptible.

The SDK's low-level client does the speaking (transport, API version, request forms). Two of them are kept, since a
client has one deadline: a quick one for questions, a patient one for what starts and ends containers.
"""

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import docker
import docker.auth
import docker.errors
import requests
import urllib3.exceptions
from docker.tls import TLSConfig
from docker.utils import kwargs_from_env

from agent.doors import DriverError
from agent.drivers.docker_container import Container, Listed, Version, parsed

DEFAULT_HOST: Final = "unix:///var/run/docker.sock"
QUICK_SECONDS: Final = 10
PATIENT_SECONDS: Final = 60
PULL_SECONDS: Final = 1800
_PULL_SILENCE_SECONDS: Final = 60
_PIECE_BYTES: Final = 65536
_FRAME_HEADER: Final = struct.Struct(">BxxxL")
_T = TypeVar("_T")
_TRANSPORT_ERRORS: Final = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    docker.errors.DockerException,
    OSError,
    ValueError,
)
_BROKEN_STREAM: Final = (*_TRANSPORT_ERRORS, AttributeError)
"""AttributeError: urllib3 drops its connection when the answer is closed while it is read."""


class EngineAway(DriverError):
    """The engine cannot be reached, hangs or is going down: the same call may work later.

    *absent*: there is not even a socket of it.
    """

    def __init__(self, message: str, *, absent: bool = False) -> None:
        super().__init__(message, temporary=True)
        self.absent = absent


class EngineRefused(DriverError):
    """The engine answered with an error. *status* as in HTTP, *explanation* in its own words."""

    def __init__(self, status: int, explanation: str) -> None:
        super().__init__(f"the Docker engine refused: {explanation}", temporary=False)
        self.status = status
        self.explanation = explanation


class NotThere(EngineRefused):
    """What the call is about does not exist. *image*: it is the image that does not."""

    def __init__(self, explanation: str, *, image: bool = False) -> None:
        super().__init__(404, explanation)
        self.image = image


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineAddress:
    """Where the engine is. *chosen*: somebody named it, so its absence is a fault and not a machine without one."""

    host: str
    tls: TLSConfig | None = None
    chosen: bool = False


def engine_address(environment: Mapping[str, str], host: str = "") -> EngineAddress:
    """The engine of the settings (*host*), else of `DOCKER_HOST` and its like, else the machine's own.

    DriverError if certificates that the environment names cannot be read.
    """
    try:
        named = kwargs_from_env(dict(environment) or {"DOCKER_HOST": ""})
    except docker.errors.DockerException as error:
        raise DriverError(f"DOCKER_CERT_PATH: {error}") from None
    chosen = host or named.get("base_url", "")
    return EngineAddress(host=chosen or DEFAULT_HOST, tls=named.get("tls"), chosen=bool(chosen))


class Stream:
    """An answer that is read as it comes, by one thread; any other may `interrupt` it.

    Once its head is there, within the deadline of every call, it may be silent for *silence_seconds* (None: for ever).
    """

    def __init__(self, response: requests.Response, silence_seconds: float | None) -> None:
        self._response = response
        self._interrupted = False
        self._socket = _socket_of(response)
        if self._socket is not None:
            self._socket.settimeout(silence_seconds)

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """Output of a container without a terminal: (1 stdout, 2 stderr, 3 the engine's own error; bytes)."""
        held = bytearray()
        for data in self._pieces():
            held += data
            begin = 0
            while len(held) - begin >= _FRAME_HEADER.size:
                kind, length = _FRAME_HEADER.unpack_from(held, begin)
                end = begin + _FRAME_HEADER.size + length
                if len(held) < end:
                    break
                yield kind, bytes(held[begin + _FRAME_HEADER.size : end])
                begin = end
            del held[:begin]

    def messages(self) -> Iterator[dict[str, Any]]:
        """JSON objects, one after another."""
        text, decoder = "", json.JSONDecoder()
        for data in self._pieces():
            text += data.decode("utf-8", "replace")
            while text := text.lstrip():
                try:
                    message, end = decoder.raw_decode(text)
                except ValueError:
                    break
                text = text[end:]
                if isinstance(message, dict):
                    yield message

    def interrupt(self) -> None:
        """Ends the reading: the reader sees the end of the answer."""
        self._interrupted = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Lets go of the connection. Only the reader may."""
        self._response.close()

    def _pieces(self) -> Iterator[bytes]:
        """What has come, as soon as there is any."""
        try:
            while data := self._response.raw.read1(_PIECE_BYTES):
                yield data
        except _BROKEN_STREAM as error:
            if not self._interrupted:
                raise EngineAway(f"the connection to the Docker engine broke: {_cause(error)}") from None


class Engine:
    """One Docker engine. Thread-safe. Every method raises EngineAway, EngineRefused or NotThere, and nothing else."""

    def __init__(self, address: EngineAddress) -> None:
        self.address = address
        self._lock = threading.Lock()
        self._clients: dict[int, docker.APIClient] = {}

    def version(self, seconds: int = QUICK_SECONDS) -> Version:
        """What the engine says of itself."""
        return parsed(self._call(seconds, lambda client: client.version()), Version)

    def containers(self, labels: Mapping[str, str]) -> list[Listed]:
        """All containers with all these labels, whatever their state."""
        wanted = [f"{name}={value}" for name, value in labels.items()]
        found = self._call(
            QUICK_SECONDS, lambda client: client.containers(all=True, filters={"label": wanted})
        )
        return parsed(found, list[Listed])

    def inspect(self, container: str) -> Container:
        """A container by id or name."""
        return parsed(
            self._call(QUICK_SECONDS, lambda client: client.inspect_container(container)), Container
        )

    def create(self, request: Mapping[str, Any], name: str) -> str:
        """Makes a container and returns its id. EngineRefused 409 where the name is in use."""

        def make(client: docker.APIClient) -> str:
            made = client.create_container_from_config(dict(request), name)  # type: ignore[no-untyped-call]
            return str(made["Id"])

        return self._call(PATIENT_SECONDS, make)

    def start(self, container: str) -> None:
        """Starts a container; one that runs is left as it is."""
        self._call(PATIENT_SECONDS, lambda client: client.start(container))

    def kill(self, container: str, signal: str) -> None:
        """Sends a signal. EngineRefused 409 where the container does not run."""
        self._call(PATIENT_SECONDS, lambda client: client.kill(container, signal))

    def remove(self, container: str, *, force: bool = False) -> None:
        """Removes a container, with the volumes that have no name. *force*: though it runs."""
        self._call(PATIENT_SECONDS, lambda client: client.remove_container(container, v=True, force=force))

    def pull(self, repository: str, tag: str, registry: str, auth: Mapping[str, str]) -> None:
        """Fetches an image; *auth* empty: as this machine's own docker configuration has it for *registry*.

        EngineRefused with the registry's word, EngineAway if it takes longer than half an hour.
        """

        def header(client: docker.APIClient) -> str | None:
            if auth:
                return str(docker.auth.encode_header(dict(auth)).decode("ascii"))
            found = docker.auth.get_config_header(client, registry)
            return None if found is None else found.decode("ascii")

        credentials = self._call(QUICK_SECONDS, header)
        deadline = time.monotonic() + PULL_SECONDS
        with self.stream(
            "POST",
            "/images/create",
            {"fromImage": repository, "tag": tag},
            silence_seconds=_PULL_SILENCE_SECONDS,
            headers={"X-Registry-Auth": credentials} if credentials else None,
        ) as stream:
            for message in stream.messages():
                if "error" in message:
                    raise EngineRefused(500, str(message["error"]))
                if time.monotonic() > deadline:
                    raise EngineAway(f"the pull took longer than {PULL_SECONDS // 60} minutes")

    def create_exec(self, container: str, command: list[str]) -> str:
        """Prepares a command in a running container and returns its id. EngineRefused 409 if it does not run."""
        made = self._call(QUICK_SECONDS, lambda client: client.exec_create(container, command))
        return str(made["Id"])

    def inspect_exec(self, exec_id: str) -> tuple[bool, int | None, int]:
        """Of a command in a container: whether it runs, its exit code, its pid on the engine's machine (or 0)."""
        said = self._call(QUICK_SECONDS, lambda client: client.exec_inspect(exec_id))
        return bool(said.get("Running")), said.get("ExitCode"), int(said.get("Pid") or 0)

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        silence_seconds: float | None,
        head_seconds: float = QUICK_SECONDS,
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Iterator[Stream]:
        """An answer read as it comes, whose head is there within *head_seconds*."""

        def ask(client: docker.APIClient) -> Stream:
            response = client.request(
                method,
                f"{client.base_url}/v{client.api_version}{path}",
                params=dict(params or {}),
                headers=dict(headers or {}),
                json=body,
                stream=True,
                timeout=head_seconds,
            )
            try:
                response.raise_for_status()
            except requests.HTTPError as error:
                docker.errors.create_api_error_from_http_exception(error)
            return Stream(response, silence_seconds)

        stream = self._call(PATIENT_SECONDS, ask)
        try:
            yield stream
        finally:
            stream.close()

    def close(self) -> None:
        """Closes the connections that rest. What is under way ends by itself."""
        with self._lock:
            clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            client.close()

    def _call(self, seconds: int, ask: Callable[[docker.APIClient], _T]) -> _T:
        try:
            self._reach(seconds)
            return ask(self._client(seconds))
        except docker.errors.NotFound as error:
            image = isinstance(error, docker.errors.ImageNotFound)
            raise NotThere(str(error.explanation), image=image) from None
        except docker.errors.APIError as error:
            status = 500 if error.response is None else error.response.status_code
            if status == requests.codes.unavailable:
                raise EngineAway(f"the Docker engine is not ready: {error.explanation}") from None
            raise EngineRefused(status, str(error.explanation)) from None
        except _TRANSPORT_ERRORS as error:
            # An engine that comes back may be another release: the next call asks for its API version again.
            self.close()
            raise EngineAway(
                f"no Docker engine answers at {self.address.host}: {_cause(error)}",
                absent=isinstance(_innermost(error), FileNotFoundError),
            ) from None

    def _reach(self, seconds: int) -> None:
        """OSError if nobody listens: the SDK would leave the socket of a connection that failed open."""
        scheme, _, path = self.address.host.partition("://")
        if scheme == "unix":
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(seconds)
                probe.connect(path)

    def _client(self, seconds: int) -> docker.APIClient:
        with self._lock:
            client = self._clients.get(seconds)
        if client is not None:
            return client
        made = docker.APIClient(
            base_url=self.address.host,
            version="auto",
            timeout=min(seconds, QUICK_SECONDS),
            tls=self.address.tls or False,
        )
        made.timeout = seconds
        with self._lock:
            kept = self._clients.setdefault(seconds, made)
        if kept is not made:
            made.close()
        return kept


def _socket_of(response: requests.Response) -> socket.socket | None:
    """The socket beneath an answer, as the SDK itself reaches for it; None where all of it has come already."""
    raw: Any = response.raw
    try:
        found = raw._fp.fp.raw._sock  # noqa: SLF001 - urllib3 and http.client have no other way to it
    except AttributeError:
        return None
    return found if isinstance(found, socket.socket) else None


def _cause(error: BaseException) -> str:
    """The innermost reason, in a few words: the SDK wraps `Connection refused` five times."""
    seen = _innermost(error)
    if isinstance(seen, TimeoutError):
        return "it kept silent until the deadline of the call"
    if isinstance(seen, PermissionError):
        return "Permission denied: the agent's user has to be in the group that owns the socket (docker)"
    if isinstance(seen, OSError) and seen.strerror:
        return seen.strerror
    return str(seen)


def _innermost(error: BaseException) -> BaseException:
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return error
