"""What documents say of each other: dependencies that exist and do not go round in circles. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from trueup.models.errors import SpecError
from trueup.sources.tree import Spot
from trueup.sources.wording import near

_MAX_WAYS: Final = 12
"""As many circles are spelled out, and as many jobs of each: a circle may be as large as the tree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependency:
    """One name in `depends_on`, and where it stands."""

    name: str
    place: Spot
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    """A job that a valid one depends on and that no document is: what runs of it must not be removed."""

    dependant: str
    name: str
    error: SpecError


def absent_dependencies(jobs: Mapping[str, Sequence[Dependency]], known: set[str]) -> Iterator[Absent]:
    """For each valid job, the dependencies that are not *known*, by name."""
    for job in sorted(jobs):
        for dependency in jobs[job]:
            if dependency.name in known:
                continue
            message = f"there is no job {dependency.name!r}"
            close = near(dependency.name, sorted(known))
            hint = "if it is to go, take it out of depends_on first"
            yield Absent(
                dependant=job,
                name=dependency.name,
                error=_error(job, dependency, message, f"{close} {hint}".strip()),
            )


def circular_dependencies(jobs: Mapping[str, Sequence[Dependency]]) -> dict[str, SpecError]:
    """An error for each job that waits for itself, at the dependency by which it does.

    Tarjan's strongly connected components, without recursion: a chain may be as long as the tree is large.
    """
    errors = {}
    for component in _components({job: [held.name for held in jobs[job]] for job in sorted(jobs)}):
        if len(component) == 1:  # on itself alone: no document that says so is valid
            continue
        members = set(component)
        for number, job in enumerate(component):
            first = next(held for held in jobs[job] if held.name in members)
            message = f"waits for itself, as {len(component) - 1} others do"
            if number < _MAX_WAYS:
                message = (
                    f"waits for itself: {' -> '.join(_shortened(_way_back(jobs, job, first.name, members)))}"
                )
            errors[job] = _error(job, first, message, "take one of them out of depends_on")
    return errors


def _shortened(way: list[str]) -> list[str]:
    return way if len(way) <= _MAX_WAYS else [*way[: _MAX_WAYS - 2], "…", way[-1]]


def _way_back(jobs: Mapping[str, Sequence[Dependency]], job: str, first: str, members: set[str]) -> list[str]:
    """A shortest way from *job* over *first* back to *job*, all in *members*."""
    came_from = {first: job}
    queue = [first]
    for at in queue:
        if at == job:
            break
        for held in jobs.get(at, ()):
            if held.name in members and held.name not in came_from:
                came_from[held.name] = at
                queue.append(held.name)
    way, at = [job], job
    while True:
        at = came_from[at]
        way.append(at)
        if at == job:
            return way[::-1]


def _components(edges: Mapping[str, Sequence[str]]) -> Iterator[list[str]]:
    numbers: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    open_names: set[str] = set()
    for root in edges:
        if root in numbers:
            continue
        work = [(root, iter(edges[root]))]
        while work:
            name, rest = work[-1]
            if name not in numbers:
                numbers[name] = lowest[name] = len(numbers)
                stack.append(name)
                open_names.add(name)
            for other in rest:
                if other in edges and other not in numbers:
                    work.append((other, iter(edges[other])))
                    break
                if other in open_names:
                    lowest[name] = min(lowest[name], numbers[other])
            else:
                work.pop()
                if work:
                    parent = work[-1][0]
                    lowest[parent] = min(lowest[parent], lowest[name])
                if lowest[name] == numbers[name]:
                    yield sorted(_pop_until(stack, name, open_names))


def _pop_until(stack: list[str], name: str, open_names: set[str]) -> Iterator[str]:
    while True:
        member = stack.pop()
        open_names.discard(member)
        yield member
        if member == name:
            return


def _error(job: str, dependency: Dependency, message: str, hint: str) -> SpecError:
    return SpecError(
        file=dependency.place.file.path,
        line=dependency.place.line,
        column=dependency.place.column,
        path=f"depends_on[{dependency.index}]",
        message=message,
        hint=hint,
        kind="Job",
        name=job,
    )
