"""Identifiers, each a type of its own, so that one cannot be passed for another."""

from typing import NewType, Protocol

NodeId = NewType("NodeId", str)
AllocationId = NewType("AllocationId", str)
DeploymentId = NewType("DeploymentId", str)
EvaluationId = NewType("EvaluationId", str)
RevisionId = NewType("RevisionId", str)
"""One state of the spec source: a commit's SHA, or `dir-` and a digest of a directory's content."""
Digest = NewType("Digest", str)


class IdSource(Protocol):
    """Draws identifiers: random in production, seeded in the simulator and in golden tests."""

    def new_id(self) -> str:
        """A fresh identifier: 32 lower-case hexadecimal digits, never given out before."""
        ...
