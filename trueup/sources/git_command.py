"""Runs git: with settings of our own and nobody else's, a deadline, and an end that leaves no process behind.

No user or system configuration, no helpers, no hooks, no prompt; only the one protocol the address needs. Secrets go
into a settings file of mode 0600, never into arguments or environment, which others can read.
"""

import base64
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from trueup.sources.git_remote import GitRemote

_GRACE_SECONDS: Final = 0.5
"""Between TERM, on which git takes its lock files away, and KILL."""
_MESSAGE_LENGTH: Final = 400
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
    "@@@",
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


class GitFailed(Exception):
    """A git process ended with an error. *text* is what it said, in one line."""

    def __init__(self, text: str, *, timed_out: bool = False) -> None:
        super().__init__(text)
        self.text = text
        self.timed_out = timed_out


@dataclass(frozen=True, slots=True, kw_only=True)
class GitAccess:
    """By what the remote lets us in. *token* is a token or `user:token`."""

    token: str = field(default="", repr=False)
    ssh_key: Path | None = None
    known_hosts: Path | None = None
    ca_file: Path | None = None


class GitCommand:
    """The git program with fixed settings, kept in *home*, which is its own."""

    def __init__(
        self, home: Path, remote: GitRemote, access: GitAccess, environment: Mapping[str, str]
    ) -> None:
        """Writes the settings file. *environment* is ours: of it, git sees the search path and proxies only."""
        self._home = home
        empty = home / "empty"
        empty.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings = home / "settings"
        _write_private(settings, git_settings(remote, access, hooks=empty))
        self._environment = _git_environment(environment, remote, empty, settings, access)
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    def run(self, *arguments: str, git_dir: Path, deadline_seconds: float, stdin: bytes = b"") -> bytes:
        """Runs git to its end and returns what it printed. GitFailed, also at the deadline."""
        process = self._start(arguments, git_dir)
        try:
            output, errors = process.communicate(stdin, timeout=deadline_seconds)
        except subprocess.TimeoutExpired:
            raise GitFailed(f"gave no answer within {deadline_seconds:g} s", timed_out=True) from None
        finally:
            self._finish(process)
        if process.returncode != 0:
            raise GitFailed(one_line(errors))
        return output

    @contextmanager
    def converse(
        self, *arguments: str, git_dir: Path, deadline_seconds: float
    ) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
        """Git's input and output, for questions and answers. Leaving the block ends git; at the deadline both end."""
        process = self._start(arguments, git_dir)
        timer = threading.Timer(deadline_seconds, _signal_group, (process, signal.SIGKILL))
        timer.daemon = True
        timer.start()
        try:
            if process.stdin is None or process.stdout is None:
                raise GitFailed("no pipe to git")
            yield process.stdin, process.stdout
        finally:
            timer.cancel()
            timer.join()
            self._finish(process)

    def close(self) -> None:
        """Ends what runs, from another thread, and starts nothing more."""
        with self._lock:
            self._closed = True
            running = tuple(self._running)
        for process in running:
            _signal_group(process, signal.SIGKILL)

    def _start(self, arguments: Sequence[str], git_dir: Path) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._closed:
                raise GitFailed("the source is closed")
            process = self._popen(arguments, git_dir)
            self._running.add(process)
        return process

    def _popen(self, arguments: Sequence[str], git_dir: Path) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                ["git", f"--git-dir={git_dir}", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=self._home,
                env=self._environment,
                start_new_session=True,
            )
        except FileNotFoundError:
            raise GitFailed("the git program is not installed; install git") from None
        except OSError as error:
            raise GitFailed(f"git could not be started: {error.strerror}") from None

    def _finish(self, process: subprocess.Popen[bytes]) -> None:
        _end(process)
        with self._lock:
            self._running.discard(process)


def git_settings(remote: GitRemote, access: GitAccess, *, hooks: Path) -> str:
    """The whole of the configuration git reads, as text."""
    lines = [
        *_section(
            "core",
            hooksPath=str(hooks),
            fsmonitor="false",
            logAllRefUpdates="false",
            alternateRefsCommand="",
            fsync="none",  # the mirror is a cache: what a loss of power takes is fetched anew
        ),
        *_section("credential", helper=""),
        *_section("protocol", allow="never"),
        *_section(f'protocol "{remote.transport}"', allow="always"),
        *_section("transfer", fsckObjects="true"),
        *_section("fetch", recurseSubmodules="false", writeCommitGraph="false", showForcedUpdates="false"),
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


def _https_settings(remote: GitRemote, access: GitAccess) -> list[str]:
    secret = access.token or remote.password
    lines = _section("http", lowSpeedLimit="1000", lowSpeedTime="20", sslVerify="true")
    if access.ca_file is not None:
        lines += _section("http", sslCAInfo=str(access.ca_file.absolute()))
    if secret:
        _, colon, password = secret.partition(":")
        login = secret if colon and password and access.token else f"{remote.username or 'trueup'}:{secret}"
        basic = base64.b64encode(login.encode()).decode()
        lines += _section(
            f'http "{remote.origin}"',
            extraHeader=f"Authorization: Basic {basic}",
            followRedirects="false",  # a header of our own would follow to wherever the server points
        )
    return lines


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
    ours: Mapping[str, str], remote: GitRemote, empty: Path, settings: Path, access: GitAccess
) -> dict[str, str]:
    environment = {name: ours[name] for name in _PASSED_ON if name in ours}
    return environment | {
        "HOME": str(empty),
        "XDG_CONFIG_HOME": str(empty),
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": str(settings),
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/false",
        "SSH_ASKPASS": "/bin/false",
        "GIT_PROTOCOL_FROM_USER": "0",
        "GIT_ALLOW_PROTOCOL": remote.transport,  # wins over whatever a repository's own settings say
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


def _write_private(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends git and all it started, and collects it. Nothing happens to one that has ended."""
    if process.returncode is None:
        _signal_group(process, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_SECONDS)
    if process.returncode is None:
        _signal_group(process, signal.SIGKILL)
        process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
