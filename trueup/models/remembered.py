"""Answers kept on the value they are about.

Models are frozen, so what is worked out of one stays true as long as it lives, and goes with it.
"""

from collections.abc import Callable
from functools import wraps
from typing import TypeVar

import msgspec

Of = TypeVar("Of", bound=msgspec.Struct)
Answer = TypeVar("Answer")


def remembered(function: Callable[[Of], Answer]) -> Callable[[Of], Answer]:
    """*function* of one frozen struct (declared with `dict=True`), worked out once for each object."""
    name = f"{function.__module__}.{function.__qualname__}"

    @wraps(function)
    def ask(of: Of) -> Answer:
        kept = of.__dict__
        if name not in kept:
            kept[name] = function(of)
        answer: Answer = kept[name]
        return answer

    return ask
