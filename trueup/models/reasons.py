"""Why a node was refused: values, counted by node and worded here alone, so that plan, explain, API and log agree."""

from typing import Final, NewType

Reason = NewType("Reason", str)

INELIGIBLE = Reason("node is ineligible")
DRAINING = Reason("node is draining")
UNDECLARED = Reason("node has no document")
NO_NODES = Reason("no node is registered")
DISTINCT_HOSTS = Reason("constraint distinct_hosts")
NOT_READY = Reason("node is not ready")

WAITS: Final = "waits for "
"""What the reason of a group begins with whose job waits for another."""


def insufficient(what: str) -> Reason:
    """There is too little left of *what*: `insufficient memory`."""
    return Reason(f"insufficient {what}")


def port_taken(port: int) -> Reason:
    """A host port is held by another allocation, or by one that has not ended yet."""
    return Reason(f"port {port} is taken")


def wrong_region(regions: tuple[str, ...]) -> Reason:
    """The node is in none of the job's regions."""
    return Reason(f"region is not {' or '.join(regions)}")


def missing_driver(driver: str) -> Reason:
    """The node does not offer the driver."""
    return Reason(f"driver {driver} is missing")


def unhealthy_driver(driver: str, detail: str) -> Reason:
    """The node offers the driver, and it does not work now; *detail* says why, as the node told it."""
    return Reason(f"driver {driver} is unhealthy" + (f": {detail}" if detail else ""))


def forbidden(driver: str, what: str) -> Reason:
    """The node's own policy does not let the driver do it."""
    return Reason(f"policy of driver {driver}: {what}")


def forbidden_secret(name: str, job: str) -> Reason:
    """The node's own policy does not let the job name the secret."""
    return Reason(f"policy of secrets: job {job} may not name {name}")


def forbidden_artifact(what: str) -> Reason:
    """The node's own policy does not let anything be fetched from there."""
    return Reason(f"policy of artifacts: {what}")


def missing_volume(source: str) -> Reason:
    """The node offers no host volume of that name."""
    return Reason(f"host volume {source} is missing")


def volume_elsewhere(source: str, node: str) -> Reason:
    """What is to be placed wrote a host volume on another node, and goes only where that is."""
    return Reason(f"host volume {source} is on {node}")


def missing_secret(name: str) -> Reason:
    """The node's secrets folder has no secret of that name."""
    return Reason(f"secret {name} is missing")


def constraint_failed(attribute: str, operator: str, value: str) -> Reason:
    """A constraint is not met: `constraint node.labels.disk = ssd`."""
    words = [part for part in (attribute, operator, value) if part]
    return Reason(f"constraint {' '.join(words)}")
