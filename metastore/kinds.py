"""A kind of entity: which table holds it, under which key, and where the projection in memory has it.

One declaration per kind, in the file that owns the table; loading and writing are the same for all.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from metastore.bulk import Row, execute_many, execute_rows
from trueup.models.codec import from_json, to_json
from trueup.models.state import ClusterState

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Kind(Generic[K, V]):
    """How values *V* are kept under keys *K*, which are of the columns *key_names*, tuples where these are several.

    *row* gives the columns between number and index, in the table's order, those of the key among them.
    """

    name: str
    table: sa.Table
    model: type[V]
    key_of: Callable[[V], K]
    key_names: tuple[str, ...]
    held: Callable[[ClusterState], dict[K, V]]
    put: Callable[[ClusterState, V], None]
    drop: Callable[[ClusterState, K], None]
    row: Callable[[V, ClusterState], tuple[Any, ...]]


def load(kind: Kind[K, V], connection: sa.Connection, state: ClusterState) -> None:
    """Puts every stored value into *state*, in order of arrival."""
    for body in connection.scalars(sa.select(kind.table.c.body).order_by(kind.table.c.number)):
        kind.put(state, from_json(body, kind.model))


def write(
    kind: Kind[K, V], connection: sa.Connection, staged: Mapping[K, V | None], state: ClusterState, index: int
) -> None:
    """Writes *staged* values (None: dropped) as changed at *index*; *state* already shows them."""
    dropped = [_bound(kind, key) for key, value in staged.items() if value is None]
    if dropped:
        execute_many(connection, _deletion(kind.table, kind.key_names), dropped)
    rows = [
        (*kind.row(value, state), index, to_json(value).decode())
        for value in staged.values()
        if value is not None
    ]
    execute_rows(connection, upsert(kind.table, kind.key_names), _names(kind.table), rows)


@cache
def upsert(table: sa.Table, key_columns: tuple[str, ...]) -> sa.Insert:
    """Inserts a row, or replaces the one with that key; it keeps its number."""
    statement = insert(table)
    replaced = {
        column.name: statement.excluded[column.name]
        for column in table.c
        if column.name not in {*key_columns, "number"}
    }
    return statement.on_conflict_do_update(index_elements=list(key_columns), set_=replaced)


@cache
def _names(table: sa.Table) -> tuple[str, ...]:
    return tuple(column.name for column in table.c if column.name != "number")


@cache
def _deletion(table: sa.Table, key_columns: tuple[str, ...]) -> sa.Delete:
    return sa.delete(table).where(*(table.c[name] == sa.bindparam(f"key_{name}") for name in key_columns))


def _bound(kind: Kind[K, V], key: K) -> Row:
    values = key if isinstance(key, tuple) else (key,)
    return {f"key_{name}": value for name, value in zip(kind.key_names, values, strict=True)}
