"""The engine's client: every call with a deadline, every failure one of three kinds, every long answer interruptible.

The SDK's low-level client does the speaking (transport, API version, request forms). Two of them are kept, since a
client has one deadline: a quick one for questions, a patient one for what starts and ends containers.
"""

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import docker
import docker.auth
import docker.errors
import requests
from docker.tls import TLSConfig
from docker.utils import kwargs_from_env

from agent.doors import DriverError
from agent.drivers.docker_container import Container, Image, Info, Listed, Version, parsed
from agent.drivers.docker_errors import (
    TRANSPORT_ERRORS,
    EngineAway,
    EngineRefused,
    NotThere,
    cause,
    innermost,
)
from agent.drivers.docker_patience import Patience, ask_patiently
from agent.drivers.docker_stream import Stream

DEFAULT_HOST: Final = "unix:///var/run/docker.sock"
QUICK_SECONDS: Final = 10
PATIENT_SECONDS: Final = 60
PULL_SECONDS: Final = 1800
_CONNECTIONS: Final = 64
"""Those kept for the next call: where more threads call at once, each more is made anew, with a warning."""
_T = TypeVar("_T")


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


class Engine:
    """One Docker engine. Thread-safe. Every method raises EngineAway, EngineRefused or NotThere, and nothing else."""

    def __init__(self, address: EngineAddress) -> None:
        self.address = address
        self._lock = threading.Lock()
        self._clients: dict[int, docker.APIClient] = {}
        self.answered_at: datetime | None = None
        """When it last answered a question."""

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

    def inspect_image(self, image: str) -> Image:
        """An image by id or reference."""
        return parsed(
            self._call(
                QUICK_SECONDS,
                lambda client: client.inspect_image(image),  # type: ignore[no-untyped-call]
            ),
            Image,
        )

    def info(self) -> Info:
        """How the engine is set up."""
        return parsed(self._call(QUICK_SECONDS, lambda client: client.info()), Info)

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

    def pull(
        self, repository: str, tag: str, registry: str, auth: Mapping[str, str], given_up: threading.Event
    ) -> None:
        """Fetches an image; *auth* empty: as this machine's own docker configuration has it for *registry*.

        However long the registry takes, within half an hour, as long as the engine itself is there. EngineRefused with
        the registry's word; EngineAway if it takes longer, the engine hangs, or soon after *given_up* is set.
        """

        def header(client: docker.APIClient) -> str | None:
            if auth:
                return str(docker.auth.encode_header(dict(auth)).decode("ascii"))
            found = docker.auth.get_config_header(client, registry)
            return None if found is None else found.decode("ascii")

        credentials = self._call(QUICK_SECONDS, header)
        patience = Patience(PULL_SECONDS, given_up=given_up, is_there=self.ping)

        def ask(client: docker.APIClient) -> Stream:
            return ask_patiently(
                client,
                "/images/create",
                {"fromImage": repository, "tag": tag},
                {"X-Registry-Auth": credentials} if credentials else {},
                patience,
            )

        with closing(self._call(PATIENT_SECONDS, ask)) as stream:
            for message in stream.messages():
                if "error" in message:
                    raise EngineRefused(500, str(message["error"]))

    def ping(self) -> None:
        """Whether the engine answers at all: EngineAway if not."""
        self._call(QUICK_SECONDS, lambda client: client.ping())

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

        with closing(self._call(PATIENT_SECONDS, ask)) as stream:
            yield stream

    def close(self) -> None:
        """Closes the connections that rest. What is under way ends by itself."""
        with self._lock:
            clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            client.close()

    def _call(self, seconds: int, ask: Callable[[docker.APIClient], _T]) -> _T:
        try:
            self._reach(seconds)
            answer = ask(self._client(seconds))
        except docker.errors.NotFound as error:
            image = isinstance(error, docker.errors.ImageNotFound)
            raise NotThere(str(error.explanation), image=image) from None
        except docker.errors.APIError as error:
            status = 500 if error.response is None else error.response.status_code
            if status == requests.codes.unavailable:
                raise EngineAway(f"the Docker engine is not ready: {error.explanation}") from None
            raise EngineRefused(status, str(error.explanation)) from None
        except TRANSPORT_ERRORS as error:
            # An engine that comes back may be another release: the next call asks for its API version again.
            self.close()
            raise EngineAway(
                f"no Docker engine answers at {self.address.host}: {cause(error)}",
                absent=isinstance(innermost(error), FileNotFoundError),
            ) from None
        self.answered_at = datetime.now(UTC)
        return answer

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
            max_pool_size=_CONNECTIONS,
        )
        made.timeout = seconds
        # No proxy of the environment leads to a socket of this machine, and looking for one is a third of each call.
        made.trust_env = not self.address.host.startswith("unix://")
        with self._lock:
            kept = self._clients.setdefault(seconds, made)
        if kept is not made:
            made.close()
        return kept
