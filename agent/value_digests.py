"""Digests of secret values that say whether one changed, and nothing else: keyed with a key that never leaves the node.

The key is in a file of its own beside the journal that holds the digests: from a journal alone no value can be guessed.
"""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from agent.doors import Secrets

FILE: Final = "digest.key"
_BYTES: Final = 32


class ValueDigests:
    """Makes digests with one key."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._mark = hashlib.blake2b(b"mark", key=key, digest_size=4).hexdigest()

    def of(self, value: str) -> str:
        """`MARK:DIGEST`: the mark stands for the key, so that digests of another one are told apart."""
        return f"{self._mark}:{hashlib.blake2b(value.encode(), key=self._key, digest_size=16).hexdigest()}"


class ReadSecrets:
    """Secrets that remember the digests of what was read of them, as `agent.doors.Secrets`."""

    def __init__(self, secrets: Secrets, digests: ValueDigests) -> None:
        self._secrets = secrets
        self._digests = digests
        self._read: dict[str, str] = {}

    def names(self) -> Sequence[str]:
        """Names of all."""
        return self._secrets.names()

    def value(self, name: str) -> str:
        """The value of one."""
        value = self._secrets.value(name)
        self._read[name] = self._digests.of(value)
        return value

    def decrypted(self, ciphertext: str) -> str:
        """What was encrypted with age; it changes with the spec alone."""
        return self._secrets.decrypted(ciphertext)

    def digests(self, names: Iterable[str]) -> dict[str, str]:
        """Digests of these, as they were read; of one that was not, as it is now. SecretMissing."""
        for name in names:
            if name not in self._read:
                self.value(name)
        return {name: self._read[name] for name in names}


def throwaway_digests() -> ValueDigests:
    """With a key that nobody keeps."""
    return ValueDigests(secrets.token_bytes(_BYTES))


def open_value_digests(data: Path) -> ValueDigests:
    """With the key of an agent's data folder, made if absent. Where it cannot be kept, one that lasts until the end."""
    path = data / FILE
    with contextlib.suppress(OSError):
        key = path.read_bytes()
        if len(key) == _BYTES:
            return ValueDigests(key)
    key = secrets.token_bytes(_BYTES)
    with contextlib.suppress(OSError):
        fresh = path.with_name(f".{path.name}.new")
        descriptor = os.open(
            fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        with os.fdopen(descriptor, "wb") as file:
            file.write(key)
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(path)
    return ValueDigests(key)
