"""The tables of the first release."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0001"
down_revision: Final = None

_NUMBER: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Makes all tables. The shapes are written out here: later changes of the code leave this step as it is."""
    _entities("jobs", "name", unique=("name",))
    _entities("versions", "job", "version", "digest", "revision", unique=("job", "version"))
    _entities("templates", "name", unique=("name",))
    _entities("node_policies", "name", unique=("name",))
    _entities("nodes", "id", "name", unique=("id",))
    _entities("allocations", "id", "job", "node_id", "wanted_key", unique=("id",))
    _entities("deployments", "id", "job", unique=("id",))
    _history("events", "type", "job", "node", "allocation", "revision")
    op.create_index("ix_events_job_number", "events", ["job", "number"])
    op.create_index("ix_events_node_number", "events", ["node", "number"])
    op.create_index("ix_events_allocation_number", "events", ["allocation", "number"])
    op.create_index("ix_events_modified_index_number", "events", ["modified_index", "number"])
    _history("evaluations", "job", "status", "revision")
    op.create_index("ix_evaluations_job_number", "evaluations", ["job", "number"])
    _history("revisions", "id", "state")
    op.create_index("ix_revisions_id_number", "revisions", ["id", "number"])
    op.create_table(
        "outbox",
        sa.Column("number", _NUMBER, autoincrement=False, nullable=False),
        _text("node_id"),
        _text("allocation_id"),
        _text("kind"),
        sa.PrimaryKeyConstraint("number", name="pk_outbox"),
    )
    op.create_table(
        "node_secrets",
        _text("node_id"),
        _text("secret"),
        sa.PrimaryKeyConstraint("node_id", name="pk_node_secrets"),
    )
    op.create_table("meta", _text("name"), _text("value"), sa.PrimaryKeyConstraint("name", name="pk_meta"))


def _entities(table: str, *columns: str, unique: tuple[str, ...]) -> None:
    claims = [
        sa.UniqueConstraint(column, name=f"uq_{table}_{column}")
        for column in columns
        if column == "wanted_key"
    ]
    op.create_table(
        table,
        sa.Column("number", _NUMBER, autoincrement=True, nullable=False),
        *(_column(name) for name in columns),
        sa.Column("modified_index", sa.BigInteger(), nullable=False),
        _text("body"),
        sa.PrimaryKeyConstraint("number", name=f"pk_{table}"),
        sa.UniqueConstraint(*unique, name=f"uq_{table}_{'_'.join(unique)}"),
        *claims,
        sqlite_autoincrement=True,
    )


def _history(table: str, *columns: str) -> None:
    op.create_table(
        table,
        sa.Column("number", _NUMBER, autoincrement=True, nullable=False),
        *(_text(name) for name in columns),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("modified_index", sa.BigInteger(), nullable=False),
        _text("body"),
        sa.PrimaryKeyConstraint("number", name=f"pk_{table}"),
        sqlite_autoincrement=True,
    )


def _column(name: str) -> sa.Column[str] | sa.Column[int]:
    if name == "version":
        return sa.Column(name, sa.Integer(), nullable=False)
    return sa.Column(name, sa.Text(), nullable=name == "wanted_key")


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)
