"""`/allocations`: what runs where, and the output of its tasks, fetched from the node."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from http import HTTPStatus
from typing import Final, get_args

from flask import Response

from api.ask import Ask
from api.doors import LogsUnavailable
from api.paging import Page, page_of
from api.problems import Problem, bad_request, not_found
from api.routing import PAGING, Answer, Parameter, Route, by_job, by_node, by_revision, by_status
from api.views.allocation import AllocationView
from api.waiting import MAX_WAIT
from trueup.models.allocation import Allocation, ClientStatus
from trueup.models.ids import AllocationId
from trueup.models.state_document import allocation_document
from trueup.models.units import format_duration

CLIENT_STATUSES: Final[tuple[str, ...]] = get_args(ClientStatus)
_STREAMS: Final = ("stdout", "stderr")
_LOGS_TYPE: Final = "text/plain; charset=utf-8"
_PAGE_SECONDS: Final = MAX_WAIT.total_seconds()


def matching(ask: Ask, allocations: Iterable[Allocation]) -> Iterator[Allocation]:
    """Those that pass the request's filters `job`, `node`, `status` and `revision`."""
    status = ask.choice("status", CLIENT_STATUSES)
    job, node, revision = ask.text("job"), ask.text("node"), ask.text("revision")
    return (
        held
        for held in allocations
        if (job is None or held.job == job)
        and (node is None or node in {held.node, held.node_id})
        and (status is None or held.client_status == status)
        and (revision is None or held.revision == revision)
    )


def list_allocations(ask: Ask) -> Page[AllocationView]:
    """All allocations, by job, name and age."""
    job = ask.text("job")
    known = ask.state.allocations.values() if job is None else ask.state.allocations_of_job(job)
    return page_of(
        matching(ask, known),
        key=lambda held: (held.job, held.name, held.created_at.isoformat(), held.id),
        cursor=ask.cursor,
        limit=ask.limit,
        show=allocation_document,
    )


def show_allocation(ask: Ask, id: str) -> object:  # noqa: A002 - the path's variable is called so
    """One allocation."""
    return allocation_document(_allocation(ask, id))


def show_logs(ask: Ask, id: str) -> Answer:  # noqa: A002 - the path's variable is called so
    """The output of one task, as raw text; with `follow` until it ends."""
    allocation = _allocation(ask, id)
    params = _log_params(ask, allocation)
    node = ask.state.nodes.get(allocation.node_id)
    if node is None:
        raise not_found(f"node {allocation.node} is gone, and the output of {allocation.name} with it")
    if ask.request.method == "HEAD":
        return Response(content_type=_LOGS_TYPE)
    with ExitStack() as opening:
        # Also what is not followed waits: for the node, and for a reader that may be slow.
        opening.enter_context(ask.shared.watchers.one())
        try:
            chunks = opening.enter_context(ask.deps.logs.logs(node, allocation.id, params))
        except LogsUnavailable as error:
            busy = error.status == HTTPStatus.SERVICE_UNAVAILABLE
            raise Problem(error.status, error.detail, **({"retry_after": "5"} if busy else {})) from error
        opened = opening.pop_all()
    # Who reads in a pager takes minutes from one page to the next.
    ask.patience(_PAGE_SECONDS)
    response = Response(_relay(ask, chunks), content_type=_LOGS_TYPE)
    # Not in a finally of the generator: it does not run when the generator was never begun.
    response.call_on_close(opened.close)
    return response


def _relay(ask: Ask, chunks: Iterator[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        if ask.deps.stopping.is_set():
            # An answer that is broken off: a clean end would say that the task has ended.
            raise LogsUnavailable(HTTPStatus.SERVICE_UNAVAILABLE, "the control plane stops")
        if chunk:
            yield chunk
        elif ask.peer_gone():
            return


def _allocation(ask: Ask, id: str) -> Allocation:  # noqa: A002 - as above
    allocation = ask.state.allocations.get(AllocationId(id))
    if allocation is None:
        raise not_found(f"there is no allocation {id!r}; it never was, or its retention is over")
    return allocation


def _log_params(ask: Ask, allocation: Allocation) -> dict[str, str]:
    """The parameters for the agent, checked here so that a mistake is told even if the node is away."""
    task, since = ask.text("task"), ask.span("since")
    if task is not None and allocation.tasks and task not in allocation.tasks:
        raise not_found(
            f"{allocation.name} has no task {task!r}; it has {', '.join(sorted(allocation.tasks))}"
        )
    params = {
        "task": task,
        "stream": ask.choice("stream", _STREAMS),
        "since": None if since is None else format_duration(since),
    }
    params |= {name: "true" if ask.flag(name) else None for name in ("follow", "previous", "timestamps")}
    for name in ("tail", "offset"):
        number = ask.integer(name)
        params[name] = None if number is None else str(number)
    if params["follow"] and params["previous"]:
        raise bad_request("follow and previous exclude each other: an earlier attempt has ended")
    return {name: value for name, value in params.items() if value is not None}


ROUTES: Final[Sequence[Route]] = (
    Route(
        path="/allocations",
        handler=list_allocations,
        about="All allocations, by job, name and age.",
        answer=Page[AllocationView],
        parameters=(by_job(), by_node(), by_status(CLIENT_STATUSES), by_revision(), *PAGING),
        waits=True,
    ),
    Route(
        path="/allocations/<id>",
        handler=show_allocation,
        about="One allocation.",
        answer=AllocationView,
        waits=True,
    ),
    Route(
        path="/allocations/<id>/logs",
        handler=show_logs,
        about="The output of a task, as it wrote it, fetched from the allocation's node.",
        media_type="text/plain",
        parameters=(
            Parameter(name="task", about="Which task; may be left out where there is one."),
            Parameter(name="stream", about="Which output (stdout).", choices=_STREAMS),
            Parameter(name="follow", kind="boolean", about="Go on until the task ends."),
            Parameter(name="tail", kind="integer", about="Only this many lines from the end."),
            Parameter(name="since", kind="duration", about="Only what was written in this time."),
            Parameter(name="offset", kind="integer", about="Begin at this byte, counted over all attempts."),
            Parameter(name="previous", kind="boolean", about="The attempt before the newest."),
            Parameter(name="timestamps", kind="boolean", about="Each line with the time it came."),
        ),
    ),
)
