"""Runs git: with settings of our own and nobody else's, a deadline, and an end that leaves no process behind.

No user or system configuration, no helpers, no hooks, no prompt; only the one protocol the address needs. Secrets go
into a settings file of mode 0600, never into arguments or environment, which others can read.
"""

import base64
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from trueup.sources.git_process import Bounds, GitFailed, GitLimits, ProcessGroups
from trueup.sources.git_remote import GitRemote

__all__ = [
    "GitAccess",
    "GitCommand",
    "GitFailed",
    "allowed_signers_file",
    "git_settings",
    "keyring_folder",
    "one_line",
    "temporary_folder",
    "write_private",
]

_OUTPUT_BYTES: Final = 64 * 1024**2
_NO_PROTOCOL: Final = "none"
_TALKING: Final = frozenset({"fetch", "ls-remote"})
_MESSAGE_LENGTH: Final = 600
_PASSED_ON: Final = (
    "PATH",
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "no_proxy",
    "NO_PROXY",
    "all_proxy",
    "ALL_PROXY",
)
_BOILERPLATE: Final = (
    "fatal: Could not read from remote repository",
    "Please make sure you have the correct access rights",
    "and the repository exists.",
    "error: unable to read askpass response",
    "hint:",
    "warning:",
    "@",
    "IT IS POSSIBLE THAT",
    "Someone could be",
    "It is also possible",
    "It is required that",
    "Please contact",
    "Add correct host key",
    "remove with:",
    "ssh-keygen",
)
"""Lines that stand beside the one that tells what is wrong."""
_OLD_FAULTS: Final = (
    "zeroPaddedFilemode",
    "badTimezone",
    "missingSpaceBeforeDate",
    "missingEmail",
    "missingNameBeforeEmail",
)
"""Found in the history of sound old repositories; they harm nobody who checks nothing out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GitAccess:
    """By what the remote lets us in. *token* is a token or `user:token`."""

    token: str = field(default="", repr=False)
    ssh_key: Path | None = None
    known_hosts: Path | None = None
    ca_file: Path | None = None


class GitCommand:
    """The git program with fixed settings, kept in *home*, which is its own.

    Commands that ask a remote may talk to it; all others open no connection, whatever the mirror lacks.
    """

    def __init__(
        self,
        home: Path,
        remote: GitRemote,
        access: GitAccess,
        environment: Mapping[str, str],
        limits: GitLimits | None = None,
    ) -> None:
        """Writes the settings file. *environment* is ours: of it, git sees the search path and proxies only."""
        empty = home / "empty"
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        home.chmod(0o700)  # the mirror of a private repository lies in it
        empty.mkdir(mode=0o700, exist_ok=True)
        temporary = temporary_folder(home)
        temporary.mkdir(mode=0o700, exist_ok=True)
        settings = home / "settings"
        write_private(settings, git_settings(remote, access, home=home))
        self.home = home
        self._kept = (settings, empty, temporary)
        self.limits = limits or GitLimits()
        self._environment = _git_environment(environment, home, settings, access)
        self._transport = remote.transport
        self._secrets = _secrets(remote, access)
        self._processes = ProcessGroups(home)

    @property
    def is_whole(self) -> bool:
        """Whether what it keeps in its home is still there: somebody may have cleaned up."""
        return all(path.exists() for path in self._kept)

    def run(
        self,
        *arguments: str,
        git_dir: Path,
        deadline_seconds: float,
        stdin: bytes = b"",
        file_bytes: int | None = None,
    ) -> bytes:
        """Runs git to its end and returns what it printed. GitFailed, also at the deadline.

        *file_bytes* is the largest file that it may write.
        """
        words = ("git", f"--git-dir={git_dir}", *arguments)
        remote = _subcommand(arguments) in _TALKING
        return self._run(words, deadline_seconds, stdin=stdin, remote=remote, file_bytes=file_bytes)

    def run_beside(self, *words: str, deadline_seconds: float, stdin: bytes = b"") -> bytes:
        """Runs another program as git would run it: gpg with the keyring that is git's. GitFailed."""
        return self._run(words, deadline_seconds, stdin=stdin)

    @contextmanager
    def converse(
        self, *arguments: str, git_dir: Path, deadline_seconds: float
    ) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
        """Git's input and output, for questions and answers. Leaving the block ends git; at the deadline both end."""
        words = ("git", f"--git-dir={git_dir}", *arguments)
        bounds = self._bounds(deadline_seconds)
        with self._processes.converse(words, self._surroundings(remote=False), bounds) as pipes:
            yield pipes

    def close(self) -> None:
        """Ends what runs, from another thread, and starts nothing more."""
        self._processes.close()

    def _run(
        self,
        words: tuple[str, ...],
        deadline_seconds: float,
        *,
        stdin: bytes = b"",
        remote: bool = False,
        file_bytes: int | None = None,
    ) -> bytes:
        bounds = self._bounds(deadline_seconds, file_bytes)
        try:
            ended = self._processes.run(words, self._surroundings(remote=remote), bounds, stdin)
        except UnicodeEncodeError:
            raise GitFailed("an argument is no text") from None
        if ended.status != 0:
            raise GitFailed(self._without_secrets(one_line(ended.errors)))
        return ended.output

    def _bounds(self, deadline_seconds: float, file_bytes: int | None = None) -> Bounds:
        return Bounds(
            deadline_seconds=deadline_seconds,
            output_bytes=_OUTPUT_BYTES,
            file_bytes=self.limits.mirror_bytes if file_bytes is None else file_bytes,
            memory_bytes=self.limits.memory_bytes,
        )

    def _surroundings(self, *, remote: bool) -> Mapping[str, str]:
        # This wins over whatever a repository's own settings allow.
        return self._environment | {"GIT_ALLOW_PROTOCOL": self._transport if remote else _NO_PROTOCOL}

    def _without_secrets(self, text: str) -> str:
        """What a server says may repeat what it was sent."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def allowed_signers_file(home: Path) -> Path:
    """Where git looks for the ssh keys whose signatures count."""
    return home / "allowed-signers"


def keyring_folder(home: Path) -> Path:
    """Where gpg looks for public keys, and for its own settings."""
    return home / "gnupg"


def temporary_folder(home: Path) -> Path:
    """Where git puts a signature while it is checked."""
    return home / "tmp"


def git_settings(remote: GitRemote, access: GitAccess, *, home: Path) -> str:
    """The whole of the configuration git reads, as text."""
    lines = [
        *_section(
            "core",
            hooksPath=str(home / "empty"),
            fsmonitor="false",
            logAllRefUpdates="false",
            alternateRefsCommand="",
            bigFileThreshold="16m",  # larger ones pass through without being held in memory
            fsync="none",  # the mirror is a cache: what a loss of power takes is fetched anew
        ),
        *_section("credential", helper=""),
        *_section("protocol", allow="never"),
        *_section(f'protocol "{remote.transport}"', allow="always"),
        *_section("transfer", fsckObjects="true", bundleURI="false"),
        *_section("pack", threads="1", windowMemory="64m"),
        *_section("gpg", format="openpgp"),
        *_section('gpg "ssh"', allowedSignersFile=str(allowed_signers_file(home))),
        *_section('gpg "x509"', program="false"),
        *_section(
            "fetch",
            unpackLimit="1",
            uriProtocols="",
            recurseSubmodules="false",
            writeCommitGraph="false",
            showForcedUpdates="false",
        ),
        *_section('fetch "fsck"', **dict.fromkeys(_OLD_FAULTS, "warn")),
        *_section("gc", auto="0", autoDetach="false"),
        *_section("maintenance", auto="false"),
        *_section("i18n", logOutputEncoding="UTF-8"),
        *_section("log", mailmap="false", showSignature="false"),
    ]
    if remote.transport == "https":
        lines += _https_settings(remote, access)
    if remote.path is not None:
        lines += ["[safe]", *(f"\tdirectory = {_quote(place)}" for place in _safe_places(remote.path))]
    return "\n".join(lines) + "\n"


def one_line(errors: bytes) -> str:
    """What git's messages say of the failure, without control characters, as one line."""
    text = errors.decode("utf-8", "replace")
    lines = [re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", line).strip() for line in text.splitlines()]
    telling = [line for line in lines if line and not line.startswith(_BOILERPLATE)]
    telling = telling or [line for line in lines if line]
    joined = "; ".join(dict.fromkeys(line.removeprefix("fatal: ") for line in telling))
    joined = joined.replace(": terminal prompts disabled", "")
    return joined[:_MESSAGE_LENGTH] or "git failed and said nothing"


def _subcommand(arguments: Sequence[str]) -> str:
    """`fetch` of `-c name=value fetch …`."""
    words = iter(arguments)
    for word in words:
        if word != "-c":
            return word
        next(words, None)
    return ""


def _https_settings(remote: GitRemote, access: GitAccess) -> list[str]:
    lines = _section("http", lowSpeedLimit="1000", lowSpeedTime="20", sslVerify="true")
    if access.ca_file is not None:
        lines += _section("http", sslCAInfo=str(access.ca_file.absolute()))
    login = _login(remote, access)
    if login:
        lines += _section(
            f'http "{remote.origin}"',
            extraHeader=f"Authorization: Basic {_basic(login)}",
            followRedirects="false",  # a header of our own would follow to wherever the server points
        )
    return lines


def _login(remote: GitRemote, access: GitAccess) -> str:
    """`user:password` for https, empty if there is none."""
    secret = access.token or remote.password
    if not secret:
        return ""
    _, colon, password = secret.partition(":")
    return secret if colon and password and access.token else f"{remote.username or 'trueup'}:{secret}"


def _basic(login: str) -> str:
    return base64.b64encode(login.encode()).decode()


def _secrets(remote: GitRemote, access: GitAccess) -> tuple[str, ...]:
    """What no message may show, longest first."""
    login = _login(remote, access)
    if not login:
        return ()
    shown = {_basic(login), login, login.partition(":")[2]}
    return tuple(sorted(shown, key=lambda secret: (-len(secret), secret)))


def _section(name: str, **settings: str) -> list[str]:
    return [f"[{name}]", *(f"\t{key} = {_quote(value)}" for key, value in settings.items())]


def _quote(value: str) -> str:
    if "\n" in value or "\0" in value:
        raise GitFailed("a path or token with a line break is refused")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _safe_places(path: Path) -> list[str]:
    """The names git may know a local repository by when it checks who owns it."""
    places = {path, path.resolve()}
    return sorted(str(form) for place in places for form in (place, place / ".git"))


def _git_environment(
    ours: Mapping[str, str], home: Path, settings: Path, access: GitAccess
) -> dict[str, str]:
    empty = home / "empty"
    environment = {name: ours[name] for name in _PASSED_ON if name in ours}
    return environment | {
        "HOME": str(empty),
        "XDG_CONFIG_HOME": str(empty),
        "TMPDIR": str(temporary_folder(home)),
        "GNUPGHOME": str(keyring_folder(home)),
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": str(settings),
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/false",
        "SSH_ASKPASS": "/bin/false",
        "GIT_PROTOCOL_FROM_USER": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_SSH_VARIANT": "ssh",
        "GIT_SSH_COMMAND": _ssh_command(access),
    }


def _ssh_command(access: GitAccess) -> str:
    """Ssh without anybody's configuration: one key, known hosts only, and an end when the peer is silent."""
    options = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "UpdateHostKeys": "no",
        "ProxyCommand": "none",
        "IdentityAgent": "none",
        "ConnectTimeout": "10",
        "ServerAliveInterval": "5",
        "ServerAliveCountMax": "3",
        "PermitLocalCommand": "no",
        "ClearAllForwardings": "yes",
    }
    words = ["ssh", "-F", "/dev/null"]
    if access.ssh_key is not None:
        options["IdentitiesOnly"] = "yes"
        words += ["-i", _shell_quote(str(access.ssh_key.absolute()))]
    if access.known_hosts is not None:
        known = str(access.known_hosts.absolute())
        options["UserKnownHostsFile"] = _shell_quote(f'"{known}"')
        options["GlobalKnownHostsFile"] = "/dev/null"
    return " ".join([*words, *(f"-o{name}={value}" for name, value in options.items())])


def _shell_quote(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def write_private(path: Path, text: str) -> None:
    """Writes a file that only we can read, whole or not at all."""
    temporary = path.with_name(f"{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)
