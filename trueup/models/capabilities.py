"""Names of Linux capabilities, as agent and placement compare them."""

from typing import Final

EVERY_CONTAINER_HAS: Final = frozenset(
    {
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "NET_RAW",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    }
)


def bare(capability: str) -> str:
    """`NET_ADMIN` for `CAP_NET_ADMIN` or `net_admin`."""
    return capability.upper().removeprefix("CAP_")
