"""Where to listen, and what must be given before others than this machine may ask. Pure."""

import ipaddress
from typing import Final

LOOPBACK: Final = "127.0.0.1"


def parse_bind(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT` (`[::1]:0`; an empty host is every address). ValueError says the form."""
    host, separator, port = text.strip().rpartition(":")
    if not separator or not port.isdecimal() or int(port) > 65_535:
        raise ValueError(f"{text!r} is no address to listen on; write HOST:PORT, like {LOOPBACK}:7430")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r}: write an IPv6 address in brackets, like [::1]:{port}")
    return host or "0.0.0.0", int(port)  # noqa: S104 - what an empty host means; `open_bind` refuses it


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that host. A name other than `localhost` may mean anything."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def server_bind_problem(
    host: str, *, has_tls: bool, has_read_token: bool, insecure: bool, public_read: bool
) -> str | None:
    """Why the control plane must not listen there, and which options change that; None if it may."""
    if is_loopback(host):
        return None
    missing = []
    if not has_tls and not insecure:
        missing.append("TLS (--tls-cert and --tls-key; --insecure goes without)")
    if not has_read_token and not public_read:
        missing.append("a read token (--read-token-file; --public-read goes without)")
    if not missing:
        return None
    return _words(host, missing)


def agent_bind_problem(host: str, *, has_tls: bool, insecure: bool) -> str | None:
    """As `server_bind_problem`, for an agent's own API: its callers always show the node's secret."""
    if is_loopback(host) or has_tls or insecure:
        return None
    return _words(host, ["TLS (--tls-cert and --tls-key; --insecure goes without)"])


def _words(host: str, missing: list[str]) -> str:
    return (
        f"--bind {host} can be reached from other machines, and wants {' and '.join(missing)}; "
        f"--bind {LOOPBACK}:PORT needs neither"
    )
