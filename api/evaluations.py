"""`/evaluations`: passes over jobs, and what each did."""

from collections.abc import Sequence
from typing import Final

from api.ask import Ask
from api.history import history_page
from api.paging import Page
from api.routing import PAGING, REVERSE, Route, by_job, by_revision, by_status
from api.views.history import EvaluationView, evaluation_view

EVALUATION_STATUSES: Final = ("complete", "blocked", "failed", "partial")


def evaluation_page(ask: Ask, *, job: str | None) -> Page[EvaluationView]:
    """Evaluations in order of arrival, of one job or of all."""
    return history_page(
        ask,
        ask.deps.store.evaluations,
        show=lambda entry: evaluation_view(entry.value),
        filters={
            "job": job,
            "status": ask.choice("status", EVALUATION_STATUSES),
            "revision": ask.text("revision"),
        },
    )


def list_evaluations(ask: Ask) -> Page[EvaluationView]:
    """Evaluations in order of arrival."""
    return evaluation_page(ask, job=ask.text("job"))


ROUTES: Final[Sequence[Route]] = (
    Route(
        path="/evaluations",
        handler=list_evaluations,
        about="Passes over jobs, in order of arrival.",
        answer=Page[EvaluationView],
        parameters=(by_job(), by_status(EVALUATION_STATUSES), by_revision(), *PAGING, REVERSE),
        waits=True,
    ),
)
