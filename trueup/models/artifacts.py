"""Where artifacts may come from: what a node's policy says of a source, and how a source is named in messages. Pure.

Agent and placement ask the same questions here; the agent asks again about every redirect, and resolves links.
"""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from trueup.models.codec import Model

DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_HIDDEN: Final = "…"
_HOST: Final = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+", re.ASCII)
_LISTED: Final = re.compile(r"(?:\*|(?:\*\.)?[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?", re.ASCII)
_SEPARATORS: Final = frozenset("/?#")


class ArtifactPolicy(Model, frozen=True, kw_only=True):
    """`artifacts` of an agent's options file.

    *hosts*: `example.org`, `example.org:8443`, `*.example.org` or `*`, over http and https; None: every host, over
    https alone. *paths*: folders beneath which `file:` sources may be.
    """

    hosts: tuple[str, ...] | None = None
    paths: tuple[str, ...] = ()


def refusal(source: str, policy: ArtifactPolicy) -> str | None:
    """Why *policy* does not allow *source*, whose variables are put in; None if it does."""
    try:
        url = urlsplit(source)
        host, port = (url.hostname or "").rstrip("."), url.port
    except ValueError:
        return "an address that cannot be read is not allowed"
    if url.scheme == "file":
        return _file_refusal(unquote(url.path), policy)
    return _host_refusal(url.scheme, host, port, policy)


def is_host(text: str) -> bool:
    """Whether *text* is one of the forms in which an operator lists hosts."""
    return _LISTED.fullmatch(text) is not None


def is_beneath(path: str, folders: Sequence[str]) -> bool:
    """Whether an absolute path lies in one of the folders, or is one; by its words alone, links are not looked at."""
    at = PurePosixPath(path)
    if not at.is_absolute() or ".." in at.parts:
        return False
    return any(at.is_relative_to(folder) for folder in folders if folder.startswith("/"))


def shown_source(source: str) -> str:
    """*source* as messages may say it: without user, password, query and fragment."""
    scheme, separator, rest = source.partition("://")
    before = rest.rpartition("@")[0]
    if not separator or (":" in before and not _SEPARATORS.isdisjoint(before)):
        # Where it is unclear what belongs to a password, nothing is said but how it is fetched.
        return f"{scheme}://{_HIDDEN}" if separator else _HIDDEN
    shown = rest.partition("?")[0].partition("#")[0]
    authority, slash, path = shown.partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"


def host_of(url: SplitResult) -> str:
    """`https://example.org` of an address, for messages."""
    host = url.netloc.rpartition("@")[2]
    return f"{url.scheme}://{host}"


def name_of(source: str) -> str:
    """The last step of a source's path, which names what is fetched; empty where there is none that can name a file."""
    try:
        name = unquote(urlsplit(source).path.rstrip("/").rpartition("/")[2])
    except ValueError:
        return ""
    return "" if name in {".", ".."} or "/" in name or "\0" in name else name


def _file_refusal(path: str, policy: ArtifactPolicy) -> str | None:
    if not policy.paths:
        return "file: artifacts are not allowed"
    return None if is_beneath(path, policy.paths) else f"artifacts from the path {path} are not allowed"


def _host_refusal(scheme: str, host: str, port: int | None, policy: ArtifactPolicy) -> str | None:
    if scheme not in DEFAULT_PORTS:
        return "artifacts come over https, http and file alone"
    if _HOST.fullmatch(host) is None:
        # Also what readers of addresses take apart in different ways, such as a backslash: asked of is what is dialled.
        return "an address without a plain host name is not allowed"
    if policy.hosts is None:
        return None if scheme == "https" else "artifacts over http are not allowed"
    where = (host.lower(), DEFAULT_PORTS[scheme] if port is None else port)
    if any(_is_listed(where, one) for one in policy.hosts):
        return None
    shown = host if port is None else f"{host}:{port}"
    return f"artifacts from the host {shown} are not allowed"


def _is_listed(where: tuple[str, int], listed: str) -> bool:
    host, port = where
    try:
        entry = urlsplit(f"//{listed}")
        wanted, wanted_port = (entry.hostname or "").rstrip("."), entry.port
    except ValueError:
        return False
    if wanted_port is not None and wanted_port != port:
        return False
    if wanted == "*":
        return True
    if wanted.startswith("*."):
        return host.endswith(wanted[1:])
    return bool(wanted) and host == wanted
