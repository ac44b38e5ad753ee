"""Secret values of this node, from a folder with one file a secret, as `agent.doors.Secrets`.

Read anew at every start of a task, so that a changed file counts from then on. A link is followed only if it stays
inside the folder (as Kubernetes lays secrets out), and a name that begins with a dot is no secret.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from agent.age_key import EXTRA, AgeKey
from agent.doors import SecretMissing

MAX_SECRET_BYTES: Final = 1024**2
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}", re.ASCII)


class SecretsFolder:
    """Secrets of *folder*, and what was encrypted to *age*; None: this node has none, or no key."""

    def __init__(self, folder: Path | None, age: AgeKey | None = None) -> None:
        self._folder = None if folder is None else folder.absolute()
        self._age = age

    def names(self) -> Sequence[str]:
        """Names of all secrets, sorted; none where the folder cannot be read."""
        if self._folder is None:
            return ()
        try:
            with os.scandir(self._folder) as entries:
                return sorted(one.name for one in entries if _NAME.fullmatch(one.name) and one.is_file())
        except OSError:
            return ()

    def value(self, name: str) -> str:
        """The file's text without one line end at its end. SecretMissing says what is wrong with it."""
        if self._folder is None:
            raise SecretMissing(f"secret {name} is missing: this node has no secrets folder (--secrets DIR)")
        path = self._folder / name
        if not _NAME.fullmatch(name):
            raise SecretMissing(f"secret {name!r} is missing: that is no name of a secret")
        try:
            if not path.resolve().is_relative_to(self._folder.resolve()):
                raise SecretMissing(
                    f"secret {name} is missing: {path} is a link that leaves the secrets folder"
                )
            with path.open("rb") as file:
                value = file.read(MAX_SECRET_BYTES + 1)
            if len(value) > MAX_SECRET_BYTES:
                raise SecretMissing(f"secret {name} cannot be used: {path} is larger than 1 MiB")
            return value.decode().removesuffix("\n")
        except OSError as error:
            raise SecretMissing(f"secret {name} is missing: {path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise SecretMissing(f"secret {name} cannot be used: {path} is no UTF-8 text") from None
        except RuntimeError:  # As `resolve` has it.
            raise SecretMissing(f"secret {name} is missing: {path} is a link that leads to itself") from None

    def decrypted(self, ciphertext: str) -> str:
        """What was encrypted with age to this node's key. SecretMissing."""
        if self._age is None:
            raise SecretMissing(f"this node has no age key: {EXTRA} there, and start its agent again")
        return self._age.decrypt(ciphertext)
