"""Which nodes may run a group at all, whatever their room: an ordered list of filters, each of which says why not.

Source: Nomad's feasibility checkers and Swarm's filter pipeline.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final

import re2

from reconciler.permission import forbids, forbids_secret
from trueup.models import secret_rules
from trueup.models.job import Affinity, Constraint, Job, Task, TaskGroup
from trueup.models.node import Node, attributes_of
from trueup.models.reasons import (
    DRAINING,
    INELIGIBLE,
    NOT_READY,
    UNDECLARED,
    Reason,
    constraint_failed,
    missing_driver,
    missing_secret,
    missing_volume,
    unhealthy_driver,
    wrong_region,
)
from trueup.models.remembered import remembered
from trueup.models.task_secrets import encrypted_in, secrets_of_task
from trueup.models.template import ClusterSettings

Filter = Callable[[Node, Job, TaskGroup, ClusterSettings], Reason | None]

_HAS_AGE_KEY: Final = Constraint(attribute="node.attributes.age.recipient", operator="is_set")
_DISTINCT: Final = frozenset({"distinct_hosts", "distinct_property"})


def check(node: Node, job: Job, group: TaskGroup, settings: ClusterSettings) -> Reason | None:
    """None if *node* may run *group*, else the first reason why not."""
    for one in FILTERS:
        reason = one(node, job, group, settings)
        if reason is not None:
            return reason
    return None


def check_staying(node: Node, job: Job, group: TaskGroup, settings: ClusterSettings) -> Reason | None:
    """The same for what runs there already: an ineligible or draining node keeps what it has.

    So does one whose drivers do not work now: an engine that is away, or a disk with too little room, ends nothing.
    """
    for one in _STAYING:
        reason = one(node, job, group, settings)
        if reason is not None:
            return reason
    return None


def accepts(node: Node, settings: ClusterSettings) -> Reason | None:
    """Why *node* takes nothing new, whatever it is; None if it does."""
    if node.status != "ready" or node.lost:
        return NOT_READY
    if node.drain is not None:
        return DRAINING
    if settings.nodes == "declared" and not node.declared:
        return UNDECLARED
    return None if node.eligible else INELIGIBLE


def has_driver(node: Node, task: Task) -> Reason | None:
    """Why *node* cannot run *task* by its driver: it has none, it is not well, or policy forbids it; None if it can."""
    driver = node.drivers.get(task.driver)
    if driver is not None and not driver.healthy:
        return unhealthy_driver(task.driver, driver.detail)
    return _offers_driver(node, task)


def _offers_driver(node: Node, task: Task) -> Reason | None:
    driver = node.drivers.get(task.driver)
    return missing_driver(task.driver) if driver is None else forbids(driver, task)


def offers_volume(node: Node, source: str) -> bool:
    """Whether *node* has a host volume of that name."""
    return source in node.volumes


def _ready(node: Node, _job: Job, _group: TaskGroup, _settings: ClusterSettings) -> Reason | None:
    return None if node.status == "ready" and not node.lost else NOT_READY


def _accepts_new(node: Node, _job: Job, _group: TaskGroup, settings: ClusterSettings) -> Reason | None:
    return accepts(node, settings)


def _in_region(node: Node, job: Job, _group: TaskGroup, _settings: ClusterSettings) -> Reason | None:
    return None if not job.regions or node.region in job.regions else wrong_region(job.regions)


def _has_drivers(node: Node, _job: Job, group: TaskGroup, _settings: ClusterSettings) -> Reason | None:
    return next((found for task in group.tasks if (found := has_driver(node, task)) is not None), None)


def _offers_drivers(node: Node, _job: Job, group: TaskGroup, _settings: ClusterSettings) -> Reason | None:
    return next((found for task in group.tasks if (found := _offers_driver(node, task)) is not None), None)


def _has_volumes(node: Node, _job: Job, group: TaskGroup, _settings: ClusterSettings) -> Reason | None:
    for volume in group.volumes:
        if not offers_volume(node, volume.source):
            return missing_volume(volume.source)
    return None


def _has_secrets(node: Node, job: Job, group: TaskGroup, _settings: ClusterSettings) -> Reason | None:
    for name in secrets_of(group):
        if name not in node.secrets:
            return missing_secret(name)
        jobs = node.attributes.get(secret_rules.ATTRIBUTE + name)
        reason = None if jobs is None else forbids_secret(jobs, job.name, name)
        if reason is not None:
            return reason
    return None


def _meets_constraints(node: Node, job: Job, group: TaskGroup, _settings: ClusterSettings) -> Reason | None:
    attributes = attributes_of(node)
    for constraint in constraints_of(job, group):
        if constraint.operator in _DISTINCT:
            continue
        if not meets(constraint, attributes):
            return constraint_failed(constraint.attribute, constraint.operator, constraint.value)
    return None


FILTERS: Final[tuple[Filter, ...]] = (
    _ready,
    _accepts_new,
    _in_region,
    _has_drivers,
    _has_volumes,
    _has_secrets,
    _meets_constraints,
)
_STAYING: Final[tuple[Filter, ...]] = (
    _ready,
    _in_region,
    _offers_drivers,
    _has_volumes,
    _has_secrets,
    _meets_constraints,
)


def constraints_of(job: Job, group: TaskGroup) -> list[Constraint]:
    """The constraints of job, group and tasks, and what follows from what the tasks need: all must be met."""
    written = [
        *job.constraints,
        *group.constraints,
        *(one for task in group.tasks for one in task.constraints),
    ]
    return [*written, _HAS_AGE_KEY] if needs_age(group) else written


@remembered
def needs_age(group: TaskGroup) -> bool:
    """Whether something of *group* is encrypted with age. Whether a node's key decrypts it, only that node can say."""
    return any(encrypted_in(task) for task in group.tasks)


@remembered
def secrets_of(group: TaskGroup) -> Sequence[str]:
    """The names of all secrets that tasks of *group* use, sorted."""
    return tuple(sorted(frozenset().union(*map(secrets_of_task, group.tasks))))


def meets(condition: Constraint | Affinity, attributes: Mapping[str, str]) -> bool:
    """Whether the attributes of a node satisfy a constraint or affinity.

    An attribute that is not set satisfies only `is_not_set` and `!=`. Numbers compare as numbers where both sides
    are, else as text. Source: Nomad's `checkConstraint`.
    """
    held = attributes.get(condition.attribute)
    if condition.operator == "is_set":
        return held is not None
    if condition.operator == "is_not_set":
        return held is None
    if held is None:
        return condition.operator == "!="
    return _OPERATORS[condition.operator](held, condition.value)


def _ordered(held: str, value: str) -> int:
    try:
        left: float | str = float(held)
        right: float | str = float(value)
    except ValueError:
        left, right = held, value
    return (left > right) - (left < right)  # type: ignore[operator]


def _matches(held: str, pattern: str) -> bool:
    return _compiled(pattern).search(held) is not None


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> "re.Pattern[str]":
    compiled: re.Pattern[str] = re2.compile(pattern)
    return compiled


def _items(text: str) -> set[str]:
    return {item.strip() for item in text.split(",")}


def _version_parts(text: str) -> tuple[int, ...]:
    numbers = re.match(r"v?(\d+(?:\.\d+)*)", text.strip(), re.ASCII)
    if numbers is None:
        return ()
    parts = [int(part) for part in numbers[1].split(".")]
    return tuple(parts + [0] * (4 - len(parts)))


def meets_version(held: str, condition: str) -> bool:
    """Whether a version meets all comma-separated terms: `>= 1.2, < 2`, `~> 1.4` (the same up to the last part)."""
    version = _version_parts(held)
    if not version:
        return False
    for term in condition.split(","):
        operator, number = re.match(r"\s*(~>|>=|<=|!=|=|>|<)?\s*(.*)", term).groups()  # type: ignore[union-attr]
        wanted = _version_parts(number)
        if operator == "~>":
            fixed = max(len(number.strip().split(".")) - 1, 1)
            if version < wanted or version[:fixed] != wanted[:fixed]:
                return False
        elif not _COMPARE[operator or "="]((version > wanted) - (version < wanted)):
            return False
    return True


_COMPARE: Final[Mapping[str, Callable[[int], bool]]] = {
    "=": lambda order: order == 0,
    "!=": lambda order: order != 0,
    "<": lambda order: order < 0,
    "<=": lambda order: order <= 0,
    ">": lambda order: order > 0,
    ">=": lambda order: order >= 0,
}
_OPERATORS: Final[Mapping[str, Callable[[str, str], bool]]] = {
    "=": lambda held, value: held == value,
    "!=": lambda held, value: held != value,
    "<": lambda held, value: _ordered(held, value) < 0,
    "<=": lambda held, value: _ordered(held, value) <= 0,
    ">": lambda held, value: _ordered(held, value) > 0,
    ">=": lambda held, value: _ordered(held, value) >= 0,
    "regexp": _matches,
    "version": meets_version,
    "set_contains": lambda held, value: _items(value) <= _items(held),
    "set_contains_any": lambda held, value: bool(_items(value) & _items(held)),
}
