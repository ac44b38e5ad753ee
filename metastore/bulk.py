"""Many rows by one statement, compiled once and handed to the driver as it wants them.

SQLAlchemy's own way goes through each row's parameters one by one, which for rows of plain texts and numbers does
nothing but cost as much as SQLite's part.
"""

from collections.abc import Sequence
from functools import cache
from operator import itemgetter
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.sql.compiler import SQLCompiler

Row = dict[str, Any]


def execute_many(connection: sa.Connection, statement: sa.ClauseElement, rows: Sequence[Row]) -> None:
    """Executes *statement* for each of *rows*, which are of texts, whole numbers and None, and all have the same keys.

    *statement* has to be one object for all calls: what is compiled of it is kept.
    """
    if not rows:
        return
    text, names, fixed = _compiled(statement, connection.dialect, tuple(rows[0]))
    full = [row | fixed for row in rows] if fixed else rows
    if names is None:
        connection.exec_driver_sql(text, full)
    elif len(names) == 1:
        connection.exec_driver_sql(text, [(row[names[0]],) for row in full])
    else:
        connection.exec_driver_sql(text, [*map(itemgetter(*names), full)])


def execute_rows(
    connection: sa.Connection,
    statement: sa.ClauseElement,
    names: tuple[str, ...],
    rows: Sequence[tuple[Any, ...]],
) -> None:
    """As `execute_many`, of tuples in the order of *names*: where that is the statement's own, they go as they are."""
    if not rows:
        return
    text, order, fixed = _compiled(statement, connection.dialect, names)
    if order == names and not fixed:
        connection.exec_driver_sql(text, list(rows))
    else:
        execute_many(connection, statement, [dict(zip(names, row, strict=True)) for row in rows])


@cache
def _compiled(
    statement: sa.ClauseElement, dialect: Dialect, keys: tuple[str, ...]
) -> tuple[str, tuple[str, ...] | None, Row]:
    """The text, its parameters in order or None where the driver takes them by name, and those that are in no row."""
    compiled = cast("SQLCompiler", statement.compile(dialect=dialect, column_keys=list(keys)))
    fixed = {name: value for name, value in compiled.params.items() if name not in keys}
    names = compiled.positiontup
    return str(compiled), None if names is None else tuple(names), fixed
