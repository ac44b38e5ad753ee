"""Jobs and their versions, each version once."""

from operator import attrgetter
from typing import Final

import sqlalchemy as sa

from metastore.kinds import Kind
from metastore.schema import entity_table, text_column
from trueup.models.record import JobRecord, JobVersion
from trueup.models.state import ClusterState

JOBS: Final[Kind[str, JobRecord]] = Kind(
    name="job",
    table=entity_table("jobs", text_column("name"), unique=("name",)),
    model=JobRecord,
    key_of=attrgetter("name"),
    key_names=("name",),
    held=attrgetter("jobs"),
    put=lambda state, record: state.jobs.__setitem__(record.name, record),
    drop=lambda state, name: state.jobs.__delitem__(name),
    row=lambda record, _state: (record.name,),
)


def _version_key(version: JobVersion) -> tuple[str, int]:
    return version.job.name, version.version


def _drop_version(state: ClusterState, key: tuple[str, int]) -> None:
    del state.versions[key]


VERSIONS: Final[Kind[tuple[str, int], JobVersion]] = Kind(
    name="version",
    table=entity_table(
        "versions",
        text_column("job"),
        sa.Column("version", sa.Integer, nullable=False),
        text_column("digest"),
        text_column("revision"),
        unique=("job", "version"),
    ),
    model=JobVersion,
    key_of=_version_key,
    key_names=("job", "version"),
    held=attrgetter("versions"),
    put=ClusterState.put_version,
    drop=_drop_version,
    row=lambda version, _state: (version.job.name, version.version, version.digest, version.revision),
)
