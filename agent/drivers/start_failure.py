"""Words for a task that could not be started: what failed, and what to do about it.

Named is the program alone: arguments and variables may hold secrets.
"""

import errno as codes
import os
from typing import Final

_ADVICE: Final = {
    ("start", codes.ENOENT): "install it on this node, or give its full path; "
    "a bare name is looked up in the task's PATH, and the interpreter of a script has to exist too",
    ("start", codes.EACCES): "it, and every folder above it, has to be executable for the task's user",
    (
        "start",
        codes.ENOEXEC,
    ): "a script needs a first line like #!/bin/sh, a program has to be built for this machine",
    ("start", codes.E2BIG): "arguments and environment together are too long for this kernel",
    ("enter the working directory", codes.ENOENT): "config.cwd has to exist on the node",
    ("enter the working directory", codes.EACCES): "config.cwd has to be open to the task's user",
}
_LIMIT: Final = "set the limit "
_LIMIT_ADVICE: Final = (
    "it is more than this agent may give: ask for less in config.ulimits, or raise the agent's own hard limit "
    "(LimitNOFILE= and its like in its unit)"
)
_TEMPORARY: Final = frozenset(
    {
        codes.EAGAIN,
        codes.ENOMEM,
        codes.ENOSPC,
        codes.EDQUOT,
        codes.EMFILE,
        codes.ENFILE,
        codes.EIO,
        codes.EROFS,
    }
)


def explain(step: str, errno: int, *, program: str = "", path: str = "") -> str:
    """One sentence for a step that failed, with advice where there is some."""
    why = os.strerror(errno) if errno else "failed"
    what = f' "{program}"' if program else " the task's program"
    if step == "start":
        message = f"cannot start{what}: {why}"
    elif step == "prepare":
        message = f"cannot prepare the start of{what}: {why}" + (f": {path}" if path else "")
    else:
        message = f"cannot {step} for{what}: {why}"
    advice = _ADVICE.get((step, errno))
    if step.startswith(_LIMIT) and errno == codes.EPERM:
        advice = _LIMIT_ADVICE
    return f"{message}; {advice}" if advice else message


def is_temporary(errno: int) -> bool:
    """Whether the same start may work later, once the machine has room again."""
    return errno in _TEMPORARY


def exit_code(errno: int) -> int:
    """The exit code a shell gives to a program it could not start."""
    return 127 if errno == codes.ENOENT else 126
