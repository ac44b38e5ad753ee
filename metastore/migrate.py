"""Brings a store's tables to the form this release knows, by Alembic; refuses those of a later one."""

from pathlib import Path
from typing import Final

import sqlalchemy as sa

from metastore.errors import StoreError

SCHEMA: Final = "0002"
"""The newest migration. Revisions are numbers of four digits, so that later ones compare as greater."""


def schema_of(connection: sa.Connection, path: Path) -> str:
    """The schema of the store at *path*; empty for a new file.

    StoreError for one that a later release wrote, and for a file that is no store of ours.
    """
    tables = set(sa.inspect(connection).get_table_names())
    if not tables:
        return ""
    found = None
    if {"alembic_version", "meta"} <= tables:
        found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    if not isinstance(found, str):
        raise StoreError(
            f"{path}: it is a database, but not of trueup; move it aside, or choose another --data"
        )
    if found > SCHEMA:
        raise StoreError(
            f"{path}: it was written by a newer trueup (schema {found}, this release knows {SCHEMA}); start that "
            "release, or put back the backup made before the upgrade"
        )
    return found


def migrate(connection: sa.Connection, path: Path) -> bool:
    """Migrates within the transaction of *connection*; True if the store is new and has only its tables yet."""
    found = schema_of(connection, path)
    if found != SCHEMA:
        _upgrade(connection)
    return not found


def _upgrade(connection: sa.Connection) -> None:
    # Alembic takes longer to import than most stores to load, and most starts have nothing to migrate.
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    # Alembic reads % as the beginning of a placeholder.
    folder = str(Path(__file__).with_name("migrations")).replace("%", "%%")
    config.set_main_option("script_location", folder)
    config.set_main_option("path_separator", "os")
    command.upgrade(config, "head")
