"""What must hold of every state the control plane commits, whoever crashed on the way. The simulator asks after
each step; a violation is a sentence that names the culprits.
"""

from collections import Counter
from collections.abc import Iterator

from trueup.models.claims import claimed_name
from trueup.models.fit import usage_of
from trueup.models.state import ClusterState


def violations(state: ClusterState) -> list[str]:
    """Every invariant that *state* breaks, in words; empty if all hold."""
    return [
        *_names_wanted_twice(state),
        *_nodes_overfull(state),
        *_totals_wrong(state),
        *_unexplained(state),
    ]


def _names_wanted_twice(state: ClusterState) -> Iterator[str]:
    """At most one allocation a name is wanted (a node for system jobs, a run for scheduled ones)."""
    keys = Counter(
        key for held in state.allocations.values() if (key := claimed_name(held, state)) is not None
    )
    for key, count in sorted(keys.items()):
        if count > 1:
            yield f"{count} allocations are wanted as {key}"


def _nodes_overfull(state: ClusterState) -> Iterator[str]:
    """What is wanted on a node fits on it, and no port is given out twice.

    What was told to stop but still ends is left out: a coupled replacement waits for it on the node.
    """
    for node in sorted(state.nodes.values(), key=lambda node: node.name):
        wanted = [held for held in state.allocations_on_node(node.id) if held.is_wanted]
        used = usage_of(wanted)
        if used.cpu_millicores > node.resources.cpu_millicores:
            yield f"node {node.name}: {used.cpu_millicores}m cpu of {node.resources.cpu_millicores}m are given out"
        if used.memory_bytes > node.resources.memory_bytes:
            yield f"node {node.name}: {used.memory_bytes} bytes of {node.resources.memory_bytes} are given out"
        for port, holders in sorted(used.ports.items()):
            if holders > 1:
                yield f"node {node.name}: port {port} is given out {holders} times"


def _totals_wrong(state: ClusterState) -> Iterator[str]:
    """The running totals equal a recount."""
    for node in sorted(state.nodes.values(), key=lambda node: node.name):
        if usage_of(state.allocations_on_node(node.id)) != state.usage(node.id):
            yield f"node {node.name}: the running totals are not what its allocations add up to"


def _unexplained(state: ClusterState) -> Iterator[str]:
    """Every allocation says which revision asked for it, and every stop why."""
    for held in sorted(state.allocations.values(), key=lambda held: held.id):
        if not held.revision:
            yield f"{held.name} ({held.id}) does not say which revision asked for it"
        if not held.is_wanted and not held.reason:
            yield f"{held.name} ({held.id}) is to stop, and nothing says why"
