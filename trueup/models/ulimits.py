"""Resource limits as `config.ulimits` writes them, with Docker's names: one number, or soft and hard. Pure."""

from collections.abc import Mapping
from typing import Any, Final

UNLIMITED: Final = -1


def soft_and_hard(limit: Any) -> tuple[int, int]:  # noqa: ANN401 - plain data of a config
    """What holds at first, and what the task may raise it to; one number is both."""
    if isinstance(limit, Mapping):
        return int(limit["soft"]), int(limit["hard"])
    return int(limit), int(limit)


def exceeds(limit: int, most: int) -> bool:
    """Whether *limit* is more than *most*; -1 is unlimited."""
    return most != UNLIMITED and (limit == UNLIMITED or limit > most)
