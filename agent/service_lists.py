"""The addresses of services this node was told, kept over the agent's death, and which of its tasks need them.

Part of the runner's loop, on its thread. What was told last is valid until something newer is, however long the
control plane is away; a list that tasks here still need is not dropped for not being told any more.
"""

from collections.abc import Iterator, Mapping

from agent.journal import ChangeSet, Journal
from agent.record import AllocationRecord
from agent.service_files import Lists, ServiceFiles, service_files
from trueup.models.addresses import in_order, services_named
from trueup.models.ids import AllocationId
from trueup.models.service import ServiceAddress, ServiceNews
from trueup.models.wire import Assignment


class ServiceLists:
    """`lists` and `version` are swapped whole, so that any thread may read them."""

    def __init__(self, journal: Journal) -> None:
        """Takes up what the journal has."""
        self.version, self.lists = journal.services()
        self._readers: dict[str, set[AllocationId]] = {}
        self._read: dict[AllocationId, frozenset[str]] = {}
        self._views: dict[AllocationId, Mapping[str, ServiceFiles]] = {}

    def hold(self, assignment: Assignment, record: AllocationRecord) -> None:
        """Takes in what an allocation's tasks need; nothing any more once they have ended."""
        self.let_go(assignment.allocation.id)
        names = services_named(assignment.group)
        if names and not record.has_ended:
            self._read[assignment.allocation.id] = names
            for name in names:
                self._readers.setdefault(name, set()).add(assignment.allocation.id)

    def let_go(self, allocation_id: AllocationId) -> None:
        """The allocation needs none."""
        self._views.pop(allocation_id, None)
        for name in self._read.pop(allocation_id, frozenset()):
            self._readers[name].discard(allocation_id)
            if not self._readers[name]:
                del self._readers[name]

    def take(self, news: ServiceNews, changes: ChangeSet) -> frozenset[AllocationId]:
        """Takes in what was told, notes in *changes* what is to be written, and says who has to be looked at."""
        if news.version == self.version or news.since not in {None, self.version}:
            # A repeat; or changes to what was never taken in, which come again with the next beat.
            return frozenset()
        kept = self.lists if news.since is not None else self._still_read()
        lists: Lists = {**kept, **news.lists, **dict(_changed(kept, news))}
        changed = {name for name in {*self.lists, *lists} if self.lists.get(name) != lists.get(name)}
        self.version, self.lists = news.version, lists
        changes.services_version = news.version
        changes.services.update({name: lists.get(name) for name in changed})
        readers = frozenset(key for name in changed for key in self._readers.get(name, ()))
        for key in readers:
            self._views.pop(key, None)
        return readers

    def view(self, assignment: Assignment) -> Mapping[str, ServiceFiles]:
        """The files from services of an allocation's tasks, by task."""
        allocation_id = assignment.allocation.id
        if allocation_id not in self._read:
            return {}
        found = self._views.get(allocation_id)
        if found is None:
            found = self._views[allocation_id] = dict(_files(assignment, self.lists))
        return found

    def _still_read(self) -> Lists:
        return {name: held for name, held in self.lists.items() if name in self._readers}


def _changed(kept: Lists, news: ServiceNews) -> Iterator[tuple[str, tuple[ServiceAddress, ...]]]:
    for name, by_allocation in news.changes.items():
        stays = (one for one in kept.get(name, ()) if one.allocation_id not in by_allocation)
        yield name, in_order((*stays, *(one for several in by_allocation.values() for one in several)))


def _files(assignment: Assignment, lists: Lists) -> Iterator[tuple[str, ServiceFiles]]:
    for task in assignment.group.tasks:
        if any(file.services for file in task.files):
            yield task.name, service_files(task, lists)
