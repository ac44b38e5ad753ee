"""Opening: one server a folder, migrations, what is refused and how it says so, and reading without a trace."""

import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import metastore
from metastore.errors import StoreError
from metastore.meta import FIELDS, write_meta
from metastore.migrate import SCHEMA
from metastore.schema import METADATA
from metastore.store import SqlStore
from tests.builders import CountingIds, a_job, a_node, a_record, a_version, an_allocation
from tests.unit.metastore.talking import HandClock
from trueup.models.state import ClusterState


def data_of(tmp_path: Path) -> Path:
    return tmp_path / "data"


def database_of(tmp_path: Path) -> Path:
    return data_of(tmp_path) / "trueup.db"


def open_in(folder: Path) -> SqlStore:
    return SqlStore.open(folder, HandClock(), CountingIds())


def fill(store: SqlStore, count: int) -> None:
    job, node = a_job(count=count), a_node()
    with store.transaction() as tx:
        tx.put_version(a_version(job))
        tx.put_job(a_record(job))
        tx.put_node(node)
        for index in range(count):
            tx.put_allocation(an_allocation(job, node, index=index))


def test_a_new_store_knows_who_it_is_for_ever(open_store: Callable[[], SqlStore], clock: HandClock) -> None:
    """Its cluster id and its epoch, the time it was made, stay."""
    state = open_store().state
    clock.move(days=1)
    again = open_store().state
    assert (again.cluster_id, again.epoch, again.index) == (state.cluster_id, state.epoch, 0)
    assert len(state.cluster_id) == 32


def test_a_store_made_later_has_a_greater_epoch(
    tmp_path: Path, open_store: Callable[[], SqlStore], clock: HandClock
) -> None:
    """So agents tell it from the one that was lost."""
    first = open_store()
    epoch = first.state.epoch
    first.close()
    shutil.rmtree(data_of(tmp_path))
    clock.move(seconds=1)
    assert open_store().state.epoch > epoch


def test_a_second_server_on_the_folder_is_refused(store: SqlStore, tmp_path: Path) -> None:
    """It is told which process has it."""
    with pytest.raises(StoreError, match=f"process {os.getpid()} is the server of this data folder"):
        open_in(data_of(tmp_path))
    store.close()
    open_in(data_of(tmp_path)).close()


def test_nobody_else_may_read_the_folder(store: SqlStore, tmp_path: Path) -> None:
    """The nodes' secrets are in it."""
    fill(store, 1)
    assert data_of(tmp_path).stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o077 for path in data_of(tmp_path).iterdir()} == {0}


def test_a_newer_schema_is_refused(store: SqlStore, tmp_path: Path) -> None:
    """Nothing in it is touched, and what to do is said, to the server and to the reader."""
    store.close()
    with sqlite3.connect(database_of(tmp_path)) as database:
        database.execute("UPDATE alembic_version SET version_num = '0999'")
    database.close()
    before = database_of(tmp_path).read_bytes()
    for opening in (open_in, SqlStore.read_only):
        with pytest.raises(StoreError, match=r"written by a newer trueup \(schema 0999.*start that release"):
            opening(data_of(tmp_path))
    assert database_of(tmp_path).read_bytes() == before


def test_a_foreign_database_is_refused(tmp_path: Path) -> None:
    """It is somebody else's data."""
    data_of(tmp_path).mkdir()
    with sqlite3.connect(database_of(tmp_path)) as database:
        database.execute("CREATE TABLE cats (name TEXT)")
    database.close()
    with pytest.raises(StoreError, match="not of trueup"):
        open_in(data_of(tmp_path))


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    """With what to do; also where the file is a link, which may lead anywhere."""
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="give --data a folder"):
        open_in(tmp_path / "file" / "data")
    data_of(tmp_path).mkdir()
    database_of(tmp_path).symlink_to(tmp_path / "elsewhere.db")
    with pytest.raises(StoreError, match="give --data a folder"):
        open_in(data_of(tmp_path))
    assert not (tmp_path / "elsewhere.db").exists()


@pytest.mark.parametrize("damage", ["text", "flipped page", "value"])
def test_a_damaged_store_is_refused(store: SqlStore, tmp_path: Path, damage: str) -> None:
    """The word names the file and what to do, and the file stays as it is."""
    fill(store, 200)
    store.close()
    path = database_of(tmp_path)
    if damage == "text":
        path.write_bytes(b"this is no database, and never was one " * 500)
    elif damage == "flipped page":
        content = bytearray(path.read_bytes())
        content[4096 * 5 : 4096 * 12] = os.urandom(4096 * 7)
        path.write_bytes(content)
    else:
        with sqlite3.connect(path) as database:
            database.execute("""UPDATE allocations SET body = '{"id": 7}' WHERE number = 3""")
        database.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"trueup\.db: it .*(backup|move it aside)"):
        open_in(data_of(tmp_path))
    assert path.read_bytes() == before


def test_a_refused_opening_lets_go_of_the_folder(store: SqlStore, tmp_path: Path) -> None:
    """Once the file is put right, the next server starts."""
    store.close()
    good = database_of(tmp_path).read_bytes()
    database_of(tmp_path).write_bytes(b"x" * 9999)
    with pytest.raises(StoreError):
        open_in(data_of(tmp_path))
    database_of(tmp_path).write_bytes(good)
    open_in(data_of(tmp_path)).close()


@pytest.mark.parametrize("server", ["running", "stopped", "killed"])
def test_reading_changes_no_byte(store: SqlStore, tmp_path: Path, server: str) -> None:
    """Whether a server runs on the folder, stopped well, or left its log behind."""
    fill(store, 3)
    folder = data_of(tmp_path)
    if server == "killed":
        folder = tmp_path / "left"
        shutil.copytree(data_of(tmp_path), folder)
    elif server == "stopped":
        store.close()
    before = (folder / "trueup.db").read_bytes()
    with_reader = SqlStore.read_only(folder)
    assert with_reader.state == store.state
    assert with_reader.newest_revision() is None
    with_reader.close()
    assert (folder / "trueup.db").read_bytes() == before


def test_a_reader_does_not_stop_the_writer(store: SqlStore, tmp_path: Path) -> None:
    """Nor does it see what came after it was opened."""
    fill(store, 3)
    reader = SqlStore.read_only(data_of(tmp_path))
    with store.transaction() as tx:
        tx.drop_allocation(an_allocation(index=2).id)
    assert len(reader.state.allocations) == 3
    assert len(store.state.allocations) == 2
    reader.close()


def test_reading_nothing_makes_nothing(tmp_path: Path) -> None:
    """A wrong --data is said, not filled."""
    with pytest.raises(StoreError, match="there is no store"):
        SqlStore.read_only(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_migrations_make_the_tables_that_the_code_knows(store: SqlStore, tmp_path: Path) -> None:
    """Column by column, and the newest one is the schema that is asked for."""
    engine = sa.create_engine(f"sqlite:///{database_of(tmp_path)}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    engine.dispose()
    config = Config()
    config.set_main_option("script_location", str(Path(metastore.__file__).with_name("migrations")))
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_current_head() == SCHEMA


def test_pushes_of_an_older_store_are_taken_over(tmp_path: Path) -> None:
    """They were a row each; none is lost and none comes twice."""
    data_of(tmp_path).mkdir()
    engine = sa.create_engine(f"sqlite:///{database_of(tmp_path)}")
    with engine.begin() as connection:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(Path(metastore.__file__).with_name("migrations")))
        config.set_main_option("path_separator", "os")
        command.upgrade(config, "0001")
        for number, kind in ((7, "start"), (9, "stop")):
            connection.exec_driver_sql("INSERT INTO outbox VALUES (?, 'n', 'a', ?)", (number, kind))
        write_meta(connection, ClusterState(cluster_id="c", epoch=1), FIELDS)
    engine.dispose()
    store = open_in(data_of(tmp_path))
    assert [(one.node_id, one.allocation_id, one.kind) for one in store.outbox()] == [
        ("n", "a", "start"),
        ("n", "a", "stop"),
    ]
    store.pushed([one.number for one in store.outbox()])
    with store.transaction() as tx:
        tx.put_node(a_node("node-1"))
    store.close()
    store = open_in(data_of(tmp_path))
    assert store.outbox() == ()
    store.close()


def test_many_allocations_load_fast(open_store: Callable[[], SqlStore]) -> None:
    """10,000 of them in less than 1.5 s of CPU."""
    fill(open_store(), 10_000)
    began = time.process_time()
    assert len(open_store().state.allocations) == 10_000
    assert time.process_time() - began < 1.5
