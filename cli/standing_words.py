"""How a node stands to an allocation, in words: what its score is made of, and why it is on no other node."""

from collections.abc import Sequence
from typing import Final

from cli.wording import reasons_words
from reconciler.standing import Whereabouts
from trueup.models.reasons import NO_NODES

_SHOWN: Final = 3


def why_here(found: Whereabouts, job_type: str) -> str:
    """The parts of the score, or that its node would not take it now."""
    if job_type in {"system", "sysbatch"}:
        return f"a {job_type} job runs on every node that may run it"
    if found.score is None:
        return "as things are now it would not be placed here; what runs is not moved for that"
    parts = ", ".join(f"{name} {value:.2f}" for name, value in found.parts.items())
    return f"score {found.score:.2f} of 1 as of now: {parts}"


def why_not_elsewhere(found: Whereabouts, node: str) -> list[str]:
    """Every other node, counted: what refuses it, what scores lower, as well, or higher by now."""
    lines = []
    if found.lower:
        lines.append(f"{_nodes(found.lower)} lower")
    if found.equal:
        lines.append(f"{_nodes(found.equal)} as well: the name that sorts first wins")
    if found.higher:
        lines.append(f"{_nodes(found.higher)} higher by now; what runs is not moved for that")
    refused = {reason: count for reason, count in found.refused.items() if reason != NO_NODES}
    if refused:
        beside = f", {node} itself among them" if found.score is None else ""
        lines.append(f"refused: {reasons_words(refused)}{beside}")
    return lines or ["there is no other node"]


def _nodes(nodes: Sequence[tuple[str, float]]) -> str:
    shown = ", ".join(f"{name} {score:.2f}" for name, score in nodes[:_SHOWN])
    more = ", …" if len(nodes) > _SHOWN else ""
    return f"{len(nodes)} {'node scores' if len(nodes) == 1 else 'nodes score'} ({shown}{more})"
