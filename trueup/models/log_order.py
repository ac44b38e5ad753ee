"""What control plane and agents say of output that an agent brings by itself, since nobody reaches it from outside.

The control plane orders (`LogOrder`) in the answer of a heartbeat, or of a `/listen` that it holds open; the agent
brings the output in pieces, each a request of its own, and is told how much more there is room for.
"""

from trueup.models.codec import Model
from trueup.models.ids import AllocationId, NodeId


class LogOrder(Model, frozen=True, kw_only=True):
    """Output somebody asked for. *id* cannot be guessed; *parameters* are those of `GET /allocations/<id>/logs`.

    An order may come several times, until its first piece has arrived.
    """

    id: str
    allocation_id: AllocationId
    parameters: dict[str, str] = {}


class LogTaken(Model, frozen=True, kw_only=True):
    """How many bytes of an order's output have arrived in all, and how many more there is room for now."""

    received: int
    room: int


class ListenRequest(Model, frozen=True, kw_only=True):
    """An agent that cannot be reached waits here for what there is to say to it."""

    node_id: NodeId


class ListenResponse(Model, frozen=True, kw_only=True):
    """Output to bring; *beat*: send a heartbeat at once; *again*: listen on right away, else a heartbeat says when."""

    logs: tuple[LogOrder, ...] = ()
    beat: bool = False
    again: bool = False
