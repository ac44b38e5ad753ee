"""Whose signatures count: a commit is taken only if someone in the operator's file signed it.

The file has lines as ssh's `allowed_signers` (git's `gpg.ssh.allowedSignersFile`) and armored blocks of OpenPGP public
keys, in any order. The keys go into a keyring of our own; no other key on the machine counts, and none is ever
fetched. git itself checks the signature, of the commit that a ref stands for: by its id it vouches for its tree and for
all that came before, whoever signed that.
"""

import binascii
import hashlib
import re
import shutil
from base64 import b64decode
from pathlib import Path
from typing import Final, NamedTuple

from trueup.models.source_error import SourceUnavailable
from trueup.sources.git_command import (
    GitCommand,
    GitFailed,
    allowed_signers_file,
    keyring_folder,
    temporary_folder,
    write_private,
)

MAX_FILE_BYTES: Final = 1024**2
_SECONDS: Final = 30.0
_BLOCK: Final = re.compile(
    r"^-----BEGIN PGP PUBLIC KEY BLOCK-----\s*$.*?^-----END PGP PUBLIC KEY BLOCK-----\s*$",
    re.DOTALL | re.MULTILINE,
)
_KEY_KIND: Final = re.compile(r"(?:sk-)?(?:ssh|ecdsa)-[a-z0-9@.-]+")
_FINGERPRINT: Final = re.compile(rb"^pub:.*\n(?:(?!fpr|sub).*\n)*?fpr:+([0-9A-F]+):", re.MULTILINE)
_GPG_SETTINGS: Final = """batch
no-tty
no-autostart
disable-dirmngr
no-auto-key-retrieve
"""
_FULLY_TRUSTED: Final = "6"
_GOOD: Final = "G"
_REFUSED: Final = {
    "N": "it has no signature that can be checked",
    "B": "its signature is not of this commit",
    "U": "it is signed with {key}, which is not in {file}",
    "E": "it is signed with {key}, which is not in {file}",
    "X": "its signature has expired",
    "Y": "it is signed with {key}, which has expired",
    "R": "it is signed with {key}, which was revoked",
}
"""By the letter of `%G?` in git's log. `U` is ssh's word for a good signature of nobody in the file."""


class CommitRefused(SourceUnavailable):
    """A commit whose signature does not count. The remote is well."""


class Signers:
    """Those in *file*, which is read again when it changed."""

    def __init__(self, file: Path) -> None:
        self._file = file.absolute()
        self._ready: tuple[Path, str] | None = None

    def prepare(self, git: GitCommand) -> None:
        """Gives git the keys that are in the file now. SourceUnavailable: unreadable, or not such a file.

        Also takes away what a check that was killed left. One caller at a time, as for `check`.
        """
        for left in temporary_folder(git.home).iterdir():
            left.unlink(missing_ok=True)
        content = self._content()
        state = (git.home, hashlib.sha256(content).hexdigest())
        if (
            state == self._ready
            and keyring_folder(git.home).exists()
            and allowed_signers_file(git.home).exists()
        ):
            return
        self._ready = None
        signers = self._parse(content)
        write_private(allowed_signers_file(git.home), signers.ssh)
        self._make_keyring(git, signers.blocks)
        self._ready = state

    def check(self, git: GitCommand, mirror: Path, commit: str) -> None:
        """Nothing if *commit*, which *mirror* has, is signed by one of them. CommitRefused, GitFailed."""
        output = git.run(
            "log", "--max-count=1", "--no-show-signature", "--format=%G?%x00%GK%x00", commit, "--",
            git_dir=mirror, deadline_seconds=_SECONDS,
        )  # fmt: skip
        letter, key, *_ = [*output.decode("utf-8", "replace").split("\0"), "", ""]
        if letter == _GOOD:
            return
        reason = _REFUSED.get(letter, _REFUSED["N"])
        told = reason.format(key=f"the key {key}" if key else "an unknown key", file=self._file)
        raise CommitRefused(f"commit {commit} is refused: {told}; see --git-allowed-signers")

    def _content(self) -> bytes:
        try:
            with self._file.open("rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise self._unusable(f"cannot be read: {error.strerror}") from None
        if len(content) > MAX_FILE_BYTES:
            raise self._unusable(f"is larger than {MAX_FILE_BYTES // 1024**2} MiB")
        return content

    def _parse(self, content: bytes) -> "_Parsed":
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            raise self._unusable("is no text; export keys of OpenPGP with gpg --armor --export") from None
        if "PRIVATE KEY" in text:
            raise self._unusable("has a private key; only public ones belong there")
        blocks = tuple(
            _Block(line=text.count("\n", 0, found.start()) + 1, text=found.group())
            for found in _BLOCK.finditer(text)
        )
        lines = _BLOCK.sub(lambda found: "\n" * found.group().count("\n"), text).splitlines()
        for number, line in enumerate(lines, start=1):
            self._check_line(number, line)
        if not blocks and not any(_is_key_line(line) for line in lines):
            raise self._unusable("names nobody, so no commit could be taken")
        return _Parsed(ssh="\n".join(lines) + "\n", blocks=blocks)

    def _check_line(self, number: int, line: str) -> None:
        if not _is_key_line(line):
            return
        words = line.split()
        if _KEY_KIND.fullmatch(words[0]):
            raise self._unusable(
                f"line {number} begins with a key; write before it who signs with it: ann@example.org {words[0]} …"
            )
        kinds = [place for place, word in enumerate(words[1:-1], start=1) if _KEY_KIND.fullmatch(word)]
        if not kinds or not _is_key(words[kinds[0] + 1]):
            raise self._unusable(
                f"line {number} is none of ssh's allowed signers (ann@example.org ssh-ed25519 AAAA…), nor part of an"
                " armored block of OpenPGP public keys"
            )

    def _make_keyring(self, git: GitCommand, blocks: "tuple[_Block, ...]") -> None:
        """A keyring of exactly the keys of *blocks*, all of them trusted, put in place whole.

        Made without `gpg --import`, which wants an agent, whose socket has no room for a long path.
        """
        place = keyring_folder(git.home)
        fresh = place.with_name(f"{place.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        (fresh / "gpg.conf").write_text(_GPG_SETTINGS, encoding="ascii")
        gpg = _Gpg(git, fresh)
        lines: dict[str, int] = {}
        with (fresh / "pubring.gpg").open("wb") as keyring:
            for block in blocks:
                keyring.write(self._read_block(gpg, block, lines))
        try:
            if lines and gpg.keys("--list-keys") != [*lines]:
                raise self._unusable("has blocks of public keys that make no keyring together")
            gpg.run("--import-ownertrust", stdin="".join(f"{key}:{_FULLY_TRUSTED}:\n" for key in lines))
        except GitFailed as failure:
            raise self._unusable(f"makes no keyring: {failure.text}") from None
        shutil.rmtree(place, ignore_errors=True)
        fresh.rename(place)

    def _read_block(self, gpg: "_Gpg", block: "_Block", lines: dict[str, int]) -> bytes:
        """The block without its armor. Adds to *lines* where each key was found."""
        where = f"line {block.line} begins a block of public keys that"
        try:
            content = gpg.run("--dearmor", stdin=block.text)
            keys = gpg.keys("--show-keys", stdin=block.text)
        except GitFailed as failure:
            raise self._unusable(f"{where} gpg does not take: {failure.text}") from None
        if not keys:
            raise self._unusable(f"{where} has no key")
        for key in keys:
            if key in lines:
                raise self._unusable(f"{where} has the key {key}, as the one of line {lines[key]}; leave one")
            lines[key] = block.line
        return content

    def _unusable(self, why: str) -> SourceUnavailable:
        return SourceUnavailable(f"--git-allowed-signers: {self._file} {why}")


class _Block(NamedTuple):
    line: int
    text: str


class _Parsed(NamedTuple):
    ssh: str
    blocks: tuple[_Block, ...]


class _Gpg:
    """The gpg program with the keyring in *home*."""

    def __init__(self, git: GitCommand, home: Path) -> None:
        self._git = git
        self._home = home

    def run(self, *words: str, stdin: str = "") -> bytes:
        return self._git.run_beside(
            "gpg", "--homedir", str(self._home), "--quiet", *words,
            deadline_seconds=_SECONDS, stdin=stdin.encode(),
        )  # fmt: skip

    def keys(self, command: str, *, stdin: str = "") -> list[str]:
        """The fingerprints of all keys it lists, in order; those of subkeys are not among them."""
        listed = self.run("--with-colons", command, stdin=stdin)
        return [found.decode("ascii") for found in _FINGERPRINT.findall(listed)]


def _is_key_line(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _is_key(word: str) -> bool:
    try:
        return len(b64decode(word, validate=True)) > 0
    except binascii.Error:
        return False
