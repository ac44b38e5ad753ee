"""What goes wrong with the engine, as one of three kinds, and the cause of it in a few words."""

from typing import Final

import docker.errors
import requests
import urllib3.exceptions

from agent.doors import DriverError

TRANSPORT_ERRORS: Final = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    docker.errors.DockerException,
    OSError,
    ValueError,
)
BROKEN_STREAM: Final = (*TRANSPORT_ERRORS, AttributeError)
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


def cause(error: BaseException) -> str:
    """The innermost reason, in a few words: the SDK wraps `Connection refused` five times."""
    seen = innermost(error)
    if isinstance(seen, TimeoutError):
        return "it kept silent until the deadline of the call"
    if isinstance(seen, PermissionError):
        return "Permission denied: the agent's user has to be in the group that owns the socket (docker)"
    if isinstance(seen, OSError) and seen.strerror:
        return seen.strerror
    return str(seen)


def innermost(error: BaseException) -> BaseException:
    """What an error began with."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return error
