"""Which jobs may name a secret of a node, as agent and placement compare them, and as nodes tell it. Pure.

A node that keeps to rules has an attribute for each of its secrets, `secrets.NAME`, with the jobs that may name it.
"""

from collections.abc import Collection
from typing import Final

ATTRIBUTE: Final = "secrets."
EVERY_JOB: Final = "*"


def may_name(jobs: Collection[str], job: str) -> bool:
    """Whether *job* is among those listed for a secret."""
    return job in jobs or EVERY_JOB in jobs


def told(jobs: Collection[str]) -> str:
    """The attribute's value; empty: no job may."""
    return ",".join(sorted(jobs))


def read(value: str) -> frozenset[str]:
    """The jobs in an attribute's value."""
    return frozenset(value.split(",")) - {""}
