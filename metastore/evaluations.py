"""Passes over jobs, in order: evaluations."""

from collections.abc import Iterable
from typing import Final

import sqlalchemy as sa

from metastore.bulk import execute_many
from metastore.moments import milliseconds
from metastore.schema import history_table, text_column
from trueup.models.codec import to_json
from trueup.models.evaluation import Evaluation

EVALUATIONS: Final = history_table(
    "evaluations",
    text_column("job"),
    text_column("status"),
    text_column("revision"),
    ask_by=("job",),
)
_INSERTION: Final = sa.insert(EVALUATIONS)


def write_evaluations(connection: sa.Connection, evaluations: Iterable[Evaluation], index: int) -> None:
    """Appends evaluations."""
    execute_many(
        connection,
        _INSERTION,
        [
            {
                "job": evaluation.job,
                "status": evaluation.status,
                "revision": evaluation.revision,
                "at": milliseconds(evaluation.created_at),
                "modified_index": index,
                "body": to_json(evaluation).decode(),
            }
            for evaluation in evaluations
        ],
    )
