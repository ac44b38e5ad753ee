"""Token files: one line, readable by nobody but owner and group, never shown."""

import os
import stat
from pathlib import Path
from typing import Final

from cli.failures import Failed

_MAX_BYTES: Final = 4096


def read_token(path: Path) -> str:
    """The token in *path*, without surrounding white space.

    Failed if it cannot be read, is empty or no single ASCII word, or if everyone may read or change it.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise Failed(f"the token file {path} cannot be read: {error.strerror}") from error
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise Failed(f"the token file {path} is open to others (mode {mode:04o}); chmod 600 {path}")
    token = content.strip()
    if not token or len(content) > _MAX_BYTES or not token.isascii() or len(token.split()) != 1:
        raise Failed(f"the token file {path} does not hold one token on one line")
    return token.decode("ascii")
