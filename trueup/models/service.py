"""Where services answer, as the control plane tells it: to those who ask the API, and to nodes whose tasks need it."""

from trueup.models.codec import Model
from trueup.models.ids import AllocationId


class ServiceAddress(Model, frozen=True, kw_only=True):
    """One healthy place of a service: *host* (an IPv6 address without brackets) and *port* are what others dial."""

    host: str
    port: int
    job: str
    group: str
    allocation: str
    allocation_id: AllocationId
    node: str
    labels: dict[str, str] = {}

    @property
    def address(self) -> str:
        """`10.0.0.1:80`, `[::1]:80`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class ServiceNews(Model, frozen=True, kw_only=True):
    """What a node is told of the services its tasks name. *version* is what the agent's beats say back, unread.

    *since*: the version to which this is the change; None: *lists* are all there is. *lists* are whole, by service;
    *changes* say of some allocations under which addresses a service is found there now (none: it no longer is).
    """

    version: str
    since: str | None = None
    lists: dict[str, tuple[ServiceAddress, ...]] = {}
    changes: dict[str, dict[AllocationId, tuple[ServiceAddress, ...]]] = {}
