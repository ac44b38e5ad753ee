"""Which node has to know which addresses: kept up to date allocation by allocation, never recounted.

An allocation offers addresses (it is healthy) and its node reads services (its tasks have files made of them). A
service's digest is the sum of those of its addresses, and it remembers its newest changes: what one of ten thousand
instances does costs the same as of ten, here and on the wire. A table's version is made of the digests of its services,
so it means the same after the control plane was started anew.
"""

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from trueup.models.addresses import Offer, group_of, in_order, offers_of, services_named
from trueup.models.allocation import Allocation
from trueup.models.codec import to_json
from trueup.models.ids import AllocationId, NodeId
from trueup.models.service import ServiceAddress
from trueup.models.state import ClusterState

_DIGEST_BITS: Final = 128
_REMEMBERED: Final = 1000
"""How many changes of a service are remembered: who is further behind is told the whole list."""

Key = TypeVar("Key")
Member = TypeVar("Member")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """All a node has to know: digests of its services' addresses, and the version of the whole."""

    version: str
    digests: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """What one allocation has to do with services."""

    node_id: NodeId
    offers: tuple[Offer, ...] = ()
    reads: frozenset[str] = frozenset()
    guessed_from: str = ""
    """The job, where its own version is not known: it is looked at again when that changes."""


_NOTHING: Final = _Part(node_id=NodeId(""))


@dataclass(slots=True)
class _Service:
    """Addresses by allocation; *changes* are the allocations that changed, each with the digest before."""

    addresses: dict[AllocationId, tuple[ServiceAddress, ...]] = field(default_factory=dict)
    digest: int = 0
    changes: deque[tuple[int, AllocationId]] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))


@dataclass(slots=True)
class ServiceBook:
    """The book. Not thread-safe. *on_change* is called with each node whose table may be another now."""

    on_change: Callable[[NodeId], None] = lambda _node_id: None
    _parts: dict[AllocationId, _Part] = field(default_factory=dict)
    _services: dict[str, _Service] = field(default_factory=dict)
    _readers: dict[str, Counter[NodeId]] = field(default_factory=dict)
    _read: dict[NodeId, Counter[str]] = field(default_factory=dict)
    _guesses: dict[str, set[AllocationId]] = field(default_factory=dict)
    _tables: dict[NodeId, Table] = field(default_factory=dict)

    def look_at(self, ids: Iterable[AllocationId], state: ClusterState) -> None:
        """Takes in how these allocations are now. A repeat changes nothing."""
        for allocation_id in ids:
            held = state.allocations.get(allocation_id)
            now = _NOTHING if held is None else _part_of(held, state)
            before = self._parts.get(allocation_id, _NOTHING)
            if now == before:
                continue
            self._withdraw(allocation_id, before, now)
            self._enter(allocation_id, before, now)
            if now == _NOTHING:
                del self._parts[allocation_id]
            else:
                self._parts[allocation_id] = now

    def guesses_of(self, job: str) -> frozenset[AllocationId]:
        """Allocations that are to be looked at when *job* changes."""
        return frozenset(self._guesses.get(job, ()))

    def table(self, node_id: NodeId) -> Table | None:
        """What the node has to know; None if it reads no service."""
        read = self._read.get(node_id)
        if not read:
            return None
        found = self._tables.get(node_id)
        if found is None:
            digests = {name: self._service(name).digest for name in sorted(read)}
            lines = "".join(f"{name} {digest:x}\n" for name, digest in digests.items())
            found = self._tables[node_id] = Table(version=f"{_digest(lines.encode()):032x}", digests=digests)
        return found

    def list_of(self, service: str) -> tuple[ServiceAddress, ...]:
        """All addresses of a service; none is an answer too."""
        return in_order(one for several in self._service(service).addresses.values() for one in several)

    def changes_since(
        self, service: str, digest: int
    ) -> dict[AllocationId, tuple[ServiceAddress, ...]] | None:
        """The allocations that changed since the service had that digest, with their addresses now; None: unknown."""
        known = self._service(service)
        found: dict[AllocationId, tuple[ServiceAddress, ...]] = {}
        for before, allocation_id in reversed(known.changes):
            found[allocation_id] = known.addresses.get(allocation_id, ())
            if before == digest:
                return found
        return None

    def _service(self, name: str) -> _Service:
        return self._services.get(name, _UNHEARD_OF)

    def _withdraw(self, allocation_id: AllocationId, before: _Part, now: _Part) -> None:
        if before.guessed_from and not now.guessed_from:
            _take_out(self._guesses, before.guessed_from, allocation_id)
        if before.reads and (before.node_id, before.reads) != (now.node_id, now.reads):
            for service in before.reads:
                _count_out(self._readers, service, before.node_id)
                _count_out(self._read, before.node_id, service)
            self._is_stale(before.node_id)

    def _enter(self, allocation_id: AllocationId, before: _Part, now: _Part) -> None:
        if now.guessed_from:
            self._guesses.setdefault(now.guessed_from, set()).add(allocation_id)
        if now.reads and (before.node_id, before.reads) != (now.node_id, now.reads):
            for service in now.reads:
                self._readers.setdefault(service, Counter())[now.node_id] += 1
                self._read.setdefault(now.node_id, Counter())[service] += 1
            self._is_stale(now.node_id)
        if before.offers != now.offers:
            for service in dict.fromkeys(name for name, _ in (*before.offers, *now.offers)):
                addresses = tuple(address for name, address in now.offers if name == service)
                self._offer(service, allocation_id, addresses)

    def _offer(self, name: str, allocation_id: AllocationId, addresses: tuple[ServiceAddress, ...]) -> None:
        service = self._services.setdefault(name, _Service())
        earlier = service.addresses.pop(allocation_id, ())
        if addresses:
            service.addresses[allocation_id] = addresses
        if earlier == addresses:
            return
        if name in self._readers:
            service.changes.append((service.digest, allocation_id))
        else:
            service.changes.clear()
        change = sum(map(_digest_of, addresses)) - sum(map(_digest_of, earlier))
        service.digest = (service.digest + change) % 2**_DIGEST_BITS
        for node_id in self._readers.get(name, ()):
            self._is_stale(node_id)
        if not service.addresses and name not in self._readers:
            del self._services[name]

    def _is_stale(self, node_id: NodeId) -> None:
        self._tables.pop(node_id, None)
        self.on_change(node_id)


def _part_of(held: Allocation, state: ClusterState) -> _Part:
    if held.is_terminal:
        return _NOTHING
    group = group_of(state, held)
    guessed_from = "" if (held.job, held.job_version) in state.versions else held.job
    reads = frozenset[str]() if group is None else services_named(group)
    offers = offers_of(state, held)
    if not (offers or reads or guessed_from):
        return _NOTHING
    return _Part(node_id=held.node_id, offers=offers, reads=reads, guessed_from=guessed_from)


def _count_out(counters: dict[Key, Counter[Member]], key: Key, one: Member) -> None:
    counted = counters[key]
    counted[one] -= 1
    if not counted[one]:
        del counted[one]
    if not counted:
        del counters[key]


def _take_out(groups: dict[Key, set[Member]], key: Key, one: Member) -> None:
    groups[key].discard(one)
    if not groups[key]:
        del groups[key]


def _digest_of(address: ServiceAddress) -> int:
    return _digest(to_json(address))


def _digest(content: bytes) -> int:
    return int.from_bytes(hashlib.sha256(content).digest()[: _DIGEST_BITS // 8])


_UNHEARD_OF: Final = _Service()
"""Nobody offers it; never changed."""
