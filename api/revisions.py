"""`/revisions`: states of the spec source, in order of arrival, and what became of each."""

from collections.abc import Sequence
from typing import Final, get_args

from api.ask import Ask
from api.history import history_page
from api.paging import Page
from api.routing import PAGING, REVERSE, Route, by_revision, by_status
from api.views.history import RevisionView, revision_view
from trueup.models.revision import RevisionState

_STATES: Final[tuple[str, ...]] = get_args(RevisionState)


def list_revisions(ask: Ask) -> Page[RevisionView]:
    """Revisions in order of arrival."""
    return history_page(
        ask,
        ask.deps.store.revisions,
        show=lambda entry: revision_view(entry.value),
        filters={"state": ask.choice("status", _STATES), "id": ask.text("revision")},
    )


ROUTES: Final[Sequence[Route]] = (
    Route(
        path="/revisions",
        handler=list_revisions,
        about="States of the spec source, in order of arrival.",
        answer=Page[RevisionView],
        parameters=(by_status(_STATES), by_revision(), *PAGING, REVERSE),
        waits=True,
    ),
)
