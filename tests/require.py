"""What a test needs of the machine: absent, the test is skipped with the reason; where it was promised, it fails.

`TRUEUP_TEST_REQUIRE=docker,browser` promises, so that a missing package cannot pass for a green run; `all`, as CI says,
promises everything, and then any skip at all is a failure. The markers `docker`, `postgres` and `browser` ask by
themselves (`conftest.py`); `require("git")` is for everything else.
"""

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NoReturn

import pytest

PROMISES: Final = "TRUEUP_TEST_REQUIRE"
EVERYTHING: Final = "all"
DOCKER_HOST: Final = "TRUEUP_TEST_DOCKER_HOST"
POSTGRES_URL: Final = "TRUEUP_TEST_POSTGRES_URL"


def require(what: str) -> None:
    """Ends the test here if *what* (a name of `_PROBES`) is not on this machine."""
    missing = _PROBES[what]()
    if missing is not None:
        unavailable(what, missing)


def unavailable(what: str, reason: str) -> NoReturn:
    """For a fixture that found out itself: skips, or fails where *what* was promised."""
    if promised() & {what, EVERYTHING}:
        pytest.fail(f"{PROMISES} promises {what}, but {reason}", pytrace=False)
    pytest.skip(f"{what}: {reason}")


def promised() -> frozenset[str]:
    """What this machine is said to have."""
    return frozenset(name.strip() for name in os.environ.get(PROMISES, "").split(","))


def find_postgres() -> Path | None:
    """The folder with `initdb` and `postgres`. Debian keeps it out of PATH, one for each version."""
    on_path = shutil.which("postgres")
    if on_path is not None:
        return Path(on_path).parent
    versions = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3])
    )
    return versions[-1].parent if versions else None


def find_chromium() -> str | None:
    """Chromium as the distribution names it; Playwright's own download is never used."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def _docker() -> str | None:
    if os.environ.get(DOCKER_HOST):
        return None
    if os.geteuid() != 0:
        return f"an engine of our own needs root; {DOCKER_HOST} may name one that runs"
    return _commands("dockerd", "containerd", "iptables", "ip", "busybox")


def _postgres() -> str | None:
    if os.environ.get(POSTGRES_URL) or find_postgres() is not None:
        return None
    return f"no postgres server program is installed; {POSTGRES_URL} may name one that runs"


def _browser() -> str | None:
    if find_chromium() is None:
        return "chromium is not installed"
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed"
    return None


def _git() -> str | None:
    return _commands("git")


def _ssh() -> str | None:
    # sshd is started by its full path, and Debian keeps it where only root's PATH looks.
    return _commands("ssh", "ssh-keygen", "/usr/sbin/sshd")


def _gpg() -> str | None:
    return _commands("gpg", "gpgconf")


def _nginx() -> str | None:
    return _commands("/usr/sbin/nginx")


def _namespaces() -> str | None:
    tried = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", "test", "-w", "/proc/sys/kernel/ns_last_pid"],
        check=False,
        capture_output=True,
        text=True,
    )
    return f"no PID namespace can be made: {tried.stderr.strip()}" if tried.returncode else None


def _strace() -> str | None:
    if (missing := _commands("strace")) is not None:
        return missing
    tried = subprocess.run(["strace", "-o", "/dev/null", "true"], check=False, capture_output=True, text=True)
    return f"no process can be traced: {tried.stderr.strip()}" if tried.returncode else None


def _commands(*names: str) -> str | None:
    missing = [name for name in names if shutil.which(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else None


_PROBES: Final[Mapping[str, Callable[[], str | None]]] = {
    "docker": _docker,
    "postgres": _postgres,
    "browser": _browser,
    "git": _git,
    "ssh": _ssh,
    "gpg": _gpg,
    "nginx": _nginx,
    "namespaces": _namespaces,
    "strace": _strace,
}
