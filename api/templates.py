"""`/templates`: what jobs are made from."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from api.ask import Ask
from api.paging import Page, page_of
from api.problems import not_found
from api.routing import PAGING, Route
from trueup.models.codec import to_plain
from trueup.models.state import ClusterState


class TemplateView(msgspec.Struct, frozen=True, kw_only=True):
    """A template and the jobs made from it; *job* is as written, not yet rendered."""

    name: str
    parameters: dict[str, Any]
    job: dict[str, Any]
    jobs: tuple[str, ...]


def template_view(state: ClusterState, name: str) -> TemplateView:
    """The template of that name. KeyError if there is none."""
    template = state.templates[name]
    return TemplateView(
        name=template.name,
        parameters=to_plain(template.parameters),
        job=to_plain(template.job),
        jobs=tuple(job for job, record in sorted(state.jobs.items()) if record.template == name),
    )


def list_templates(ask: Ask) -> Page[TemplateView]:
    """All templates by name."""
    return page_of(
        ask.state.templates,
        key=lambda name: (name,),
        cursor=ask.cursor,
        limit=ask.limit,
        show=lambda name: template_view(ask.state, name),
    )


def show_template(ask: Ask, name: str) -> TemplateView:
    """One template."""
    if name not in ask.state.templates:
        raise not_found(f"there is no template {name!r}; /templates lists those there are")
    return template_view(ask.state, name)


ROUTES: Final[Sequence[Route]] = (
    Route(
        path="/templates",
        handler=list_templates,
        about="All templates by name.",
        answer=Page[TemplateView],
        parameters=PAGING,
        waits=True,
    ),
    Route(
        path="/templates/<name>",
        handler=show_template,
        about="One template.",
        answer=TemplateView,
        waits=True,
    ),
)
