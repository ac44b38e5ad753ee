"""Words for what the engine refused when a container was made or started, and whether the same may work later. Pure."""

import re
from typing import Final

from agent.doors import DriverError
from agent.drivers.docker_errors import EngineRefused, NotThere

_PASSING: Final = re.compile(
    r"no space left on device|cannot allocate memory|too many open files|resource temporarily unavailable"
    r"|is shutting down|transport is closing|connection refused|connection reset|ttrpc: closed"
    r"|context (?:deadline exceeded|canceled)|non.?running container|is not running|removal .* in progress"
    r"|is marked for removal",
    re.IGNORECASE,
)
_REMOVAL: Final = re.compile(r"removal .* in progress", re.IGNORECASE)
_NETWORK: Final = re.compile(
    r"dial tcp|lookup .*|i/o timeout|timeout|TLS handshake|connection re|EOF|toomanyrequests|too many requests"
    r"|no such host|server error|bad gateway|service unavailable|unexpected status code 5|status: 5\d\d",
    re.IGNORECASE,
)
_DENIED: Final = re.compile(r"denied|unauthorized|authentication required|no basic auth", re.IGNORECASE)
_ADVICE: Final = (
    (
        re.compile(r"executable file not found|no such file or directory", re.IGNORECASE),
        "the image has no such program: look at config.entrypoint and config.args",
    ),
    (
        re.compile(r"port is already allocated|address already in use", re.IGNORECASE),
        "another program of this node holds that port: leave `port` out to get a free one",
    ),
    (
        re.compile(r"unable to find user|no matching entries in passwd", re.IGNORECASE),
        "the image has no such user: `user` is looked up inside it",
    ),
    (
        re.compile(r"bind source path does not exist", re.IGNORECASE),
        "make that folder on the node, or mount another",
    ),
    (re.compile(r"network .* not found", re.IGNORECASE), "make that network on the node's engine"),
    (
        re.compile(r"non.?running container|No such container|is not running", re.IGNORECASE),
        "the task whose network it shares does not run yet",
    ),
)


def start_failure(image: str, refused: EngineRefused) -> DriverError:
    """Why a container of *image* could not be made or started.

    Temporary where the machine or the engine was short of something, or a task it joins does not run yet; a port that
    is taken is not: the allocation may find another node sooner than this one its port.
    """
    words = refused.explanation
    waits = isinstance(refused, NotThere) and not refused.image and "container" in words.lower()
    message = f"cannot start a container of {image}: {words}"
    advice = next((text for pattern, text in _ADVICE if pattern.search(words)), "")
    return DriverError(
        f"{message}; {advice}" if advice else message, temporary=waits or bool(_PASSING.search(words))
    )


def is_being_removed(refused: EngineRefused) -> bool:
    """Whether the container that was to be removed is being removed already, by whomever."""
    return bool(_REMOVAL.search(refused.explanation))


def pull_failure(image: str, refused: EngineRefused) -> DriverError:
    """Why *image* could not be pulled. Temporary where no registry answered, or it asked for patience."""
    words = refused.explanation
    if _DENIED.search(words):
        return DriverError(
            f"cannot pull {image}: {words}; there is no such image, or config.auth has to name who may pull it"
        )
    passing = bool(_NETWORK.search(words) or _PASSING.search(words))
    advice = "is the registry up, and reachable from this node?" if passing else "look at config.image"
    return DriverError(f"cannot pull {image}: {words}; {advice}", temporary=passing)


def image_absent(image: str) -> DriverError:
    """The image is not here and must not be pulled."""
    return DriverError(
        f'the image {image} is not on this node, and config.pull is "never": '
        'load it there, or set pull to "missing"'
    )
