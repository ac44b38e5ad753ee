"""What an operator may name as a git source: an address, a ref, folders; all checked before any process starts.

Only https, ssh and local repositories. Whatever git would take for an option or for a remote helper (`-…`, `ext::…`)
is refused here, and a password in an address is taken out of it at once, so that no message can show it.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

Transport = Literal["https", "ssh", "file"]

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_HOST: Final = re.compile(r"[A-Za-z0-9\[:][A-Za-z0-9.\-:\]_]*")
_SCP: Final = re.compile(r"(?:(?P<user>[^@/:]+)@)?(?P<host>[^@/:]+):(?P<path>[^:].*)")
_SHA: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SHORT_SHA: Final = re.compile(r"[0-9a-f]{7,63}")
_BAD_REF: Final = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(?:/|$)|\.$|/$|^/|^\.")


class RefusedAddress(ValueError):
    """An address, ref or folder that is not taken, with what to write instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GitRemote:
    """Where the repository is. *address* holds no password; *username* and *password* came in it, for https.

    *path* is the folder of a local repository. *warning* is for the operator, once.
    """

    address: str
    transport: Transport
    path: Path | None = None
    username: str = ""
    password: str = field(default="", repr=False)
    warning: str = ""

    @property
    def origin(self) -> str:
        """The address of the server alone, for settings that are meant for it and for nobody else."""
        parts = urlsplit(self.address)
        return f"{parts.scheme}://{parts.netloc}/"


def parse_remote(text: str) -> GitRemote:
    """Reads `https://…`, `ssh://…`, `user@host:path`, `file:///…` or a local path. RefusedAddress for all others."""
    if not text or text.startswith("-") or _CONTROL.search(text):
        raise RefusedAddress(f"{_without_password(text)!r} is no address of a git repository")
    if "::" in text.partition("/")[0]:
        raise RefusedAddress(
            "remote helpers (ext::, fd:: and the like) run commands and are refused; use https or ssh"
        )
    if "://" in text:
        return _parse_url(text)
    scp = _SCP.fullmatch(text)
    if scp is not None and not Path(text).exists():
        return _ssh(scp["user"] or "", scp["host"], text)
    return _local(Path(text))


def check_ref(ref: str) -> str:
    """*ref* if it is a branch, a tag, a full ref or a commit as git allows them. RefusedAddress else."""
    if not ref or ref.startswith("-") or _BAD_REF.search(ref) or ref == "@":
        raise RefusedAddress(f"{ref!r} is no name of a branch, tag or commit")
    return ref


def check_root(path: str) -> str:
    """A folder inside the repository, `/` between names and empty for all of it. RefusedAddress if it cannot be one."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or _CONTROL.search(path) or path.startswith(("-", ":")):
        raise RefusedAddress(f"{path!r} is no folder inside the repository")
    return "/".join(parts)


def is_commit_id(ref: str) -> bool:
    """Whether *ref* is a whole commit id, which never moves."""
    return _SHA.fullmatch(ref) is not None


def is_short_commit_id(ref: str) -> bool:
    """Whether *ref* may be the beginning of a commit id."""
    return _SHORT_SHA.fullmatch(ref) is not None


def _parse_url(text: str) -> GitRemote:
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018 - reading it checks it
    except ValueError:
        raise RefusedAddress(f"{_without_password(text)!r} is no address of a git repository") from None
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise RefusedAddress("a file:// address names no host; write file:///path")
        return _local(Path(unquote(parts.path)))
    if parts.scheme == "ssh":
        return _ssh(
            parts.username or "", parts.hostname or "", _strip(parts, keep_user=True), parts.password or ""
        )
    if parts.scheme != "https":
        raise RefusedAddress(f"{parts.scheme}:// is not taken: use https://, ssh:// or a local path")
    return _https(parts)


def _https(parts: SplitResult) -> GitRemote:
    _check_host(parts.hostname or "")
    return GitRemote(
        address=_strip(parts, keep_user=False),
        transport="https",
        username=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        warning=_IN_ADDRESS_WARNING if parts.password else "",
    )


def _ssh(user: str, host: str, address: str, password: str = "") -> GitRemote:
    _check_host(host)
    if user.startswith("-"):
        raise RefusedAddress("a user name that begins with - is refused")
    warning = "the password in the ssh address is not used; give --git-ssh-key" if password else ""
    return GitRemote(address=address, transport="ssh", warning=warning)


def _local(path: Path) -> GitRemote:
    whole = path.expanduser().absolute()
    return GitRemote(address=str(whole), transport="file", path=whole)


def _check_host(host: str) -> None:
    if not _HOST.fullmatch(host):
        raise RefusedAddress(f"{host!r} is no host name")


def _strip(parts: SplitResult, *, keep_user: bool) -> str:
    host = parts.netloc.rpartition("@")[2]
    user = f"{parts.username}@" if keep_user and parts.username else ""
    return urlunsplit((parts.scheme, user + host, parts.path, parts.query, ""))


def _without_password(text: str) -> str:
    return re.sub(r"//[^/]*@", "//", text)


_IN_ADDRESS_WARNING: Final = (
    "the password in the address of the repository shows in the process list and in shell history;"
    " put it into a file and give --git-token-file"
)
