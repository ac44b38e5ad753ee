"""Allocations with their task states, and the constraint that no name is wanted twice."""

from collections import Counter
from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import Final

import sqlalchemy as sa

from metastore.bulk import execute_many
from metastore.kinds import Kind
from metastore.schema import entity_table, text_column
from trueup.models.allocation import Allocation
from trueup.models.claims import claimed_name
from trueup.models.ids import AllocationId
from trueup.models.state import ClusterState

Staged = Mapping[AllocationId, Allocation | None]


ALLOCATIONS: Final[Kind[AllocationId, Allocation]] = Kind(
    name="allocation",
    table=entity_table(
        "allocations",
        text_column("id"),
        text_column("job"),
        text_column("node_id"),
        sa.Column("wanted_key", sa.Text, nullable=True, unique=True),
        unique=("id",),
    ),
    model=Allocation,
    key_of=attrgetter("id"),
    key_names=("id",),
    held=attrgetter("allocations"),
    put=ClusterState.put_allocation,
    drop=ClusterState.drop_allocation,
    row=lambda allocation, state: (
        allocation.id,
        allocation.job,
        allocation.node_id,
        claimed_name(allocation, state),
    ),
)

_RELEASE: Final = (
    sa.update(ALLOCATIONS.table)
    .where(ALLOCATIONS.table.c.id == sa.bindparam("key_id"))
    .values(wanted_key=None)
)


def release_names(connection: sa.Connection, staged: Staged, committed: ClusterState) -> None:
    """Gives up the names that staged allocations hold, before any is claimed.

    The constraint is checked row by row: without this, whether a replacement may take over the name of what it
    replaces would hang on the order of rows.
    """
    holders = [
        {"key_id": key}
        for key, value in staged.items()
        if value is not None and key in committed.allocations and _held_name(key, committed) is not None
    ]
    if holders:
        execute_many(connection, _RELEASE, holders)


def conflicting_names(staged: Staged, state: ClusterState) -> list[str]:
    """Names that *state*, which shows the staged values, wants more than once, sorted."""
    jobs = {value.job for value in staged.values() if value is not None}
    held = [one for job in jobs for one in state.allocations_of_job(job)]
    claims = Counter((one.job, key) for one in held if (key := claimed_name(one, state)) is not None)
    return sorted({one.name for one in held if claims[one.job, claimed_name(one, state) or ""] > 1})


def name_holder(allocation: Allocation, state: ClusterState) -> Allocation | None:
    """Who else holds the name that *allocation* would claim if it were wanted; None if it is free."""
    claimed = claimed_name(allocation, state)
    return None if claimed is None else next(_others(allocation, claimed, state), None)


def _held_name(key: AllocationId, committed: ClusterState) -> str | None:
    return claimed_name(committed.allocations[key], committed)


def _others(allocation: Allocation, claimed: str, state: ClusterState) -> Iterator[Allocation]:
    for other in state.allocations_of_job(allocation.job):
        if (
            other.name == allocation.name
            and other.id != allocation.id
            and claimed_name(other, state) == claimed
        ):
            yield other
