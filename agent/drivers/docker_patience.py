"""Waits for an answer that may be long in coming through no fault of the engine's: a pull from a slow registry.

No time of silence tells whether the engine hangs or the registry does: so the engine is asked meanwhile.
"""

import select
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import docker
import docker.errors
import requests

from agent.drivers.docker_errors import EngineAway
from agent.drivers.docker_stream import Stream

_LOOK_SECONDS: Final = 0.25
_ASK_AGAIN_SECONDS: Final = 10.0


class Patience:
    """Lasts for *seconds* in all, unless *given_up* is set, as long as *is_there* raises nothing."""

    def __init__(self, seconds: float, *, given_up: threading.Event, is_there: Callable[[], None]) -> None:
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._given_up = given_up
        self._is_there = is_there

    def wait(self, socket: int) -> None:
        """Until there is something to read from *socket*, or its end. EngineAway where that is not to be waited for."""
        poller = select.poll()
        poller.register(socket, select.POLLIN)
        ask_at = time.monotonic() + _ASK_AGAIN_SECONDS
        while True:
            if self._given_up.is_set():
                raise EngineAway("nobody waits for it any more")
            if time.monotonic() > self._deadline:
                raise EngineAway(f"it took longer than {self._seconds / 60:g} minutes")
            if poller.poll(_LOOK_SECONDS * 1000):
                return
            if time.monotonic() > ask_at:
                self._is_there()
                ask_at = time.monotonic() + _ASK_AGAIN_SECONDS


def ask_patiently(
    client: docker.APIClient,
    path: str,
    params: Mapping[str, str],
    headers: Mapping[str, str],
    patience: Patience,
) -> Stream:
    """The answer to a POST, with *patience* for its head and for each part of it.

    On a connection of its own, which the engine closes at its end: so that there is always something to be waited for.
    """
    request = requests.Request(
        "POST",
        f"{client.base_url}/v{client.api_version}{path}",
        params=dict(params),
        headers={**headers, "Connection": "close"},
    )
    prepared = client.prepare_request(request)
    # One of requests' own or of the SDK's, which derive from them.
    adapter: Any = client.get_adapter(str(prepared.url))
    pool = adapter.get_connection_with_tls_context(prepared, verify=client.verify, cert=client.cert)
    connection = pool._new_conn()  # noqa: SLF001 - requests would read the head itself, and can wait for it only blindly
    try:
        connection.request(
            "POST", adapter.request_url(prepared, {}), headers=prepared.headers, preload_content=False
        )
        socket = connection.sock
        patience.wait(socket.fileno())
        response = adapter.build_response(prepared, connection.getresponse())
        response.raise_for_status()
    except requests.HTTPError as error:
        connection.close()
        docker.errors.create_api_error_from_http_exception(error)
    except BaseException:
        connection.close()
        raise
    return Stream(response, None, lambda: patience.wait(socket.fileno()))
