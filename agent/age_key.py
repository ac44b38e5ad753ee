"""The node's own key for secrets that git has encrypted with age: read or made at the agent's start.

The library is an extra (`trueup[age]`). Without it the node has no key, tells none, and gets no job that needs one.
"""

import contextlib
import importlib.util
import os
import secrets
import stat
from pathlib import Path
from typing import Any, Final

import structlog

from agent.doors import SecretMissing

FILE: Final = "age.key"
"""Where in the agent's data folder the key is kept, unless another place is named."""
RECIPIENT: Final = "age.recipient"
"""The node's attribute with the key that others encrypt to."""
EXTRA: Final = "pip install 'trueup[age]'"
_MAX_BYTES: Final = 64 * 1024
_log = structlog.stdlib.get_logger("trueup.agent")


class AgeKeyUnusable(Exception):
    """The file with the key cannot be used: says why and what to do."""


class AgeKey:
    """The identities of one key file. *recipient* is the public half of the first."""

    def __init__(self, identities: list[Any]) -> None:
        self._identities = identities
        self.recipient = str(identities[0].to_public())

    def decrypt(self, ciphertext: str) -> str:
        """The text that was encrypted to it, without one line end at its end. SecretMissing says why not."""
        import pyrage

        try:
            value: bytes = pyrage.decrypt(ciphertext.strip().encode() + b"\n", self._identities)
            return value.decode().removesuffix("\n")
        except pyrage.DecryptError as error:
            raise SecretMissing(
                f"what is encrypted with age cannot be decrypted on this node ({error}): encrypt it to its key too, "
                f"which is {self.recipient}"
            ) from None
        except UnicodeDecodeError:
            raise SecretMissing("what is encrypted with age is no UTF-8 text") from None


def open_age_key(path: Path, *, is_wanted: bool) -> AgeKey | None:
    """The key in *path*, which is made if absent: 0600, and whole or not at all. AgeKeyUnusable.

    None where the library is missing or none can be made, unless the operator asked for a key (*is_wanted*): a disk
    that is full keeps no agent from taking up what runs.
    """
    if importlib.util.find_spec("pyrage") is None:
        if is_wanted:
            raise AgeKeyUnusable(f"the age key {path} cannot be used without the library for it: {EXTRA}")
        return None
    try:
        if not path.exists():
            _make(path)
        return AgeKey(_identities(_read(path), path))
    except OSError as error:
        if is_wanted or path.exists():
            raise AgeKeyUnusable(f"the age key {path} cannot be read or made: {error.strerror}") from None
        _log.warning("no age key can be made", file=str(path), why=error.strerror)
        return None


def _make(path: Path) -> None:
    """As `age-keygen` writes it. Another agent may make it at the same time: the first one's counts."""
    from pyrage import x25519

    identity = x25519.Identity.generate()
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"# public key: {identity.to_public()}\n{identity}\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
    finally:
        fresh.unlink()


def _read(path: Path) -> str:
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        content = file.read(_MAX_BYTES)
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise AgeKeyUnusable(f"the age key {path} is open to others (mode {mode:04o}); chmod 600 {path}")
    return content.decode("ascii", "replace")


def _identities(text: str, path: Path) -> list[Any]:
    from pyrage import IdentityError, x25519

    lines = [line.strip() for line in text.splitlines()]
    try:
        found = [x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")]
    except IdentityError:
        found = []
    if not found:
        raise AgeKeyUnusable(
            f"the age key {path} holds no identity of age, or a line that is none: lines are AGE-SECRET-KEY-1…, as "
            "`age-keygen` writes them"
        )
    return found
