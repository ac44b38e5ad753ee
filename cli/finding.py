"""Which job or allocation a person means: by name, id, or the beginning of an id."""

import difflib
import re
from typing import Final

from cli.client import Answer, Client, NotFound, path_of
from cli.failures import Failed
from cli.views import AllocationView, JobView, view

_NAME: Final = re.compile(r"([^.\[\]]+)\.[^\[\]]+\[\d+\]")
_ID_START: Final = re.compile(r"[0-9a-f]{4,32}")


def find_job(client: Client, name: str) -> Answer:
    """The job of that name, as the control plane answers it. Failed names one that comes close."""
    try:
        return client.get(path_of("jobs", name))
    except NotFound:
        raise Failed(_no_job(client, name)) from None


def find_job_or_allocation(client: Client, text: str) -> JobView | AllocationView:
    """The job of that name; else the allocation of that id, that beginning of an id, or that name (the newest)."""
    named = _NAME.fullmatch(text)
    if named is not None:
        return _newest(client, job=named[1], name=text)
    try:
        return view(client.get(path_of("jobs", text)).body, JobView)
    except NotFound:
        pass
    if _ID_START.fullmatch(text):
        return _by_id(client, text)
    raise Failed(_no_job(client, text))


def allocations_of(client: Client, job: str) -> list[AllocationView]:
    """All allocations of a job that are known, the newest first, what is wanted before what is not."""
    items = client.list(path_of("jobs", job, "allocations")).body
    found = [view(item, AllocationView) for item in items]
    found.sort(key=lambda held: held.created_at.timestamp() if held.created_at else 0.0, reverse=True)
    return sorted(found, key=lambda held: held.is_over)


def _newest(client: Client, *, job: str, name: str) -> AllocationView:
    try:
        found = [held for held in allocations_of(client, job) if held.name == name]
    except NotFound:
        raise Failed(_no_job(client, job)) from None
    if not found:
        raise Failed(
            f"there is no allocation {name}; `trueup allocs --all --job {job}` lists those there are"
        )
    return found[0]


def _by_id(client: Client, text: str) -> AllocationView:
    try:
        return view(client.get(path_of("allocations", text)).body, AllocationView)
    except NotFound:
        pass
    items = client.list("/allocations").body
    found = [held for item in items if (held := view(item, AllocationView)).id.startswith(text)]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(f"{held.id[:12]} ({held.name})" for held in found[:5])
        raise Failed(
            f"{text} is the beginning of {len(found)} allocation ids, among them {names}; write more of it"
        )
    raise Failed(
        f"there is no job or allocation {text!r}; `trueup status` lists jobs, `trueup allocs` allocations"
    )


def _no_job(client: Client, name: str) -> str:
    names = [view(item, JobView).name for item in client.list("/jobs").body]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}?" if near else "`trueup status` lists those there are"
    return f"there is no job {name!r}; {hint}"
