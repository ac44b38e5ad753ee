"""Runtime variables of the contract: `${NODE_NAME}`, `${PORT_http}`, `${secret:db-password}`; `$${` writes `${`.

The one reading of such text: validation says which are unknown, the agent puts the values in.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

ENVIRONMENT_PREFIX: Final = "TRUEUP_"
SECRET_PREFIX: Final = "secret:"  # noqa: S105 - the form of a reference, no secret
PORT_PREFIXES: Final = ("PORT_", "HOST_PORT_", "ADDR_")
VARIABLES: Final = (
    "NODE_NAME",
    "NODE_ID",
    "NODE_REGION",
    "JOB_NAME",
    "GROUP_NAME",
    "TASK_NAME",
    "ALLOC_ID",
    "ALLOC_NAME",
    "ALLOC_INDEX",
    "ALLOC_EPOCH",
    "ALLOC_DIR",
    "TASK_DIR",
    "REVISION",
    "HOST_IP",
)
ADDRESS_VARIABLES: Final = ("ADDR", "HOST", "PORT", "NAME", "ALLOC_NAME", "ALLOC_ID", "NODE_NAME")
"""What a line of a file from `services` may say of its address: the same names mean the task itself elsewhere."""
ADDRESS_LABEL_PREFIX: Final = "LABEL_"
_PIECE: Final = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")


@dataclass(frozen=True, slots=True)
class Variable:
    """One `${…}` of a text: *name* is what stands between the braces, *text* the whole as written."""

    name: str
    text: str


def split_variables(text: str) -> list[str | Variable]:
    """The literal parts and variables of *text*, in order; a `${` that nothing closes is a Variable without a name."""
    pieces: list[str | Variable] = []
    position = 0
    for match in _PIECE.finditer(text):
        if match.start() > position:
            pieces.append(text[position : match.start()])
        if match[0] == "$${":
            pieces.append("${")
        else:
            pieces.append(Variable(match[1] or "", match[0]))
        position = match.end()
    if position < len(text):
        pieces.append(text[position:])
    return pieces


def known_variables(ports: Iterable[str]) -> frozenset[str]:
    """Every name a task of a group with these *ports* may use, secrets apart."""
    return frozenset(VARIABLES) | {prefix + port for port in ports for prefix in PORT_PREFIXES}
