"""People who sign their commits: with a key of ssh, or with one of OpenPGP in a keyring of their own."""

import contextlib
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.unit.sources_io.repository import Repo


class SshSigner:
    """Signs with an ssh key made in *folder*."""

    def __init__(self, folder: Path, name: str = "ann") -> None:
        self._key = folder / f"{name}-key"
        self.name = name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self._key)], check=True)

    @property
    def private(self) -> str:
        return self._key.read_text()

    @property
    def public(self) -> str:
        """Kind and key."""
        return " ".join(self._key.with_name(f"{self._key.name}.pub").read_text().split()[:2])

    def allowed(self, options: str = "") -> str:
        """The line for the file of allowed signers."""
        return " ".join(filter(None, (f"{self.name}@example.org", options, self.public))) + "\n"

    @property
    def options(self) -> Sequence[str]:
        """For git, so that it can sign."""
        return ("-c", "gpg.format=ssh", "-c", f"user.signingKey={self._key}")


class OpenPgpSigner:
    """Signs with the key of *name* in the keyring *home*. *at* is the date its gpg takes for today."""

    def __init__(self, home: Path, name: str = "ann", *, at: str = "", lasts: str = "0") -> None:
        self._home = home
        self.name = name
        words = [
            "gpg",
            "--batch",
            "--quiet",
            "--homedir",
            str(home),
            *(["--faked-system-time", at] if at else []),
        ]
        self._gpg = words
        self._program = home / f"{name}-gpg"
        self._program.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        self._program.chmod(0o700)
        self._run("--passphrase", "", "--quick-gen-key", f"{name}@example.org", "ed25519", "sign", lasts)

    def allowed(self) -> str:
        """The block for the file of allowed signers."""
        return self._run("--armor", "--export", f"{self.name}@example.org").decode()

    def binary(self) -> bytes:
        return self._run("--export", f"{self.name}@example.org")

    def revoke(self) -> None:
        """Takes the key back, with the certificate that gpg made for that day."""
        listed = self._run("--with-colons", "--list-keys", f"{self.name}@example.org").decode()
        fingerprint = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))
        certificate = (self._home / "openpgp-revocs.d" / f"{fingerprint}.rev").read_text()
        self._run("--import", stdin=certificate.replace(":-----BEGIN", "-----BEGIN").encode())

    @property
    def options(self) -> Sequence[str]:
        """For git, so that it can sign."""
        return ("-c", f"gpg.program={self._program}", "-c", f"user.signingKey={self.name}@example.org")

    def _run(self, *words: str, stdin: bytes = b"") -> bytes:
        done = subprocess.run([*self._gpg, *words], input=stdin, check=True, capture_output=True)
        return done.stdout


Signer = SshSigner | OpenPgpSigner


@contextlib.contextmanager
def keyring() -> Iterator[Path]:
    """A folder for keys of OpenPGP, whose agent ends with it. Its path is short: sockets have no long ones."""
    home = Path(tempfile.mkdtemp(prefix="gpg-"))
    try:
        yield home
    finally:
        subprocess.run(
            ["gpgconf", "--homedir", str(home), "--kill", "all"],
            check=False,
            env={"PATH": os.environ["PATH"]},
        )
        shutil.rmtree(home, ignore_errors=True)


def signed(repo: Repo, signer: Signer, files: dict[str, str | None], subject: str = "change") -> str:
    """Commits as `repo.commit` does, signed; the id."""
    repo.commit(files, subject)
    repo.git(*signer.options, "commit", "--quiet", "--amend", "--no-edit", "--allow-empty", "-S")
    return repo.git("rev-parse", "HEAD")
