"""What all tables share: one MetaData, the types of their columns, and the form of a stored body.

A table has the columns it is asked by and the whole value as JSON beside them, so a new field of a model needs
no migration. `number` is the order of arrival; it is never given out twice, so a cursor stays true.
"""

from typing import Any, Final

import sqlalchemy as sa

METADATA: Final = sa.MetaData(
    naming_convention={
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
# SQLite numbers rows by itself only in a column of exactly the type INTEGER.
NUMBER: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def entity_table(name: str, *columns: sa.Column[Any], unique: tuple[str, ...]) -> sa.Table:
    """A table of entities found by the *unique* columns, with arrival number, change index and body."""
    return sa.Table(
        name,
        METADATA,
        sa.Column("number", NUMBER, primary_key=True, autoincrement=True),
        *columns,
        sa.Column("modified_index", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.UniqueConstraint(*unique),
        sqlite_autoincrement=True,
    )


def history_table(name: str, *columns: sa.Column[Any], ask_by: tuple[str, ...]) -> sa.Table:
    """A table that only grows and is trimmed; an index for each column in *ask_by*, in order of arrival."""
    table = sa.Table(
        name,
        METADATA,
        sa.Column("number", NUMBER, primary_key=True, autoincrement=True),
        *columns,
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("modified_index", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    for column in ask_by:
        sa.Index(None, table.c[column], table.c.number)
    return table


def text_column(name: str, *, nullable: bool = False) -> sa.Column[str]:
    """A column of text."""
    return sa.Column(name, sa.Text, nullable=nullable)
