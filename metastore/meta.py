"""The store's single values: who it is, where its counters stand, what revision is applied.

Each is one row, as JSON, and one field of the state of the same name.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import sqlalchemy as sa

from metastore.kinds import upsert
from metastore.schema import METADATA, text_column
from trueup.models.codec import from_json, to_json
from trueup.models.errors import SpecError
from trueup.models.ids import RevisionId
from trueup.models.notice import Told
from trueup.models.revision import Held, SourceStatus
from trueup.models.state import ClusterState
from trueup.models.template import ClusterSettings

META: Final = sa.Table("meta", METADATA, sa.Column("name", sa.Text, primary_key=True), text_column("value"))

FIELDS: Final[Mapping[str, Any]] = {
    "cluster_id": str,
    "epoch": int,
    "index": int,
    "inherited": bool,
    "revision": RevisionId | None,
    "held": Held | None,
    "errors": tuple[SpecError, ...],
    "settings": ClusterSettings,
    "source": SourceStatus,
    "told": tuple[Told, ...],
}
_TRIMMED: Final = "trimmed_"


def load_meta(connection: sa.Connection, state: ClusterState) -> None:
    """Puts the single values into *state*."""
    rows = {row.name: row.value for row in connection.execute(sa.select(META))}
    for name, kind in FIELDS.items():
        if name in rows:
            setattr(state, name, from_json(rows[name], kind))


def write_meta(connection: sa.Connection, state: ClusterState, names: Iterable[str]) -> None:
    """Writes the named fields of *state*."""
    rows = [{"name": name, "value": to_json(getattr(state, name)).decode()} for name in names]
    connection.execute(upsert(META, ("name",)), rows)


def trimmed(connection: sa.Connection, history: str) -> int:
    """The number of the newest entry of that history that retention dropped; 0 if none was."""
    value = connection.scalar(sa.select(META.c.value).where(META.c.name == _TRIMMED + history))
    return int(value or 0)


def write_trimmed(connection: sa.Connection, history: str, number: int) -> None:
    """Notes that entries up to *number* are gone."""
    connection.execute(upsert(META, ("name",)), {"name": _TRIMMED + history, "value": str(number)})
