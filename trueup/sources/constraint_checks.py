"""What operators of constraints and affinities ask of attribute and value, beyond their schema."""

import re
from collections.abc import Iterable
from typing import Final

from trueup.sources.formats import check_re2
from trueup.sources.parts import Plain, mappings, text
from trueup.sources.report import Report
from trueup.sources.tree import Path

_VERSION_TERM: Final = re.compile(
    r"(~>|>=|<=|!=|=|>|<)?\s*v?\d{1,9}(\.\d{1,9})*([-+][0-9A-Za-z.+-]+)?", re.ASCII
)
_WITHOUT_VALUE: Final = frozenset({"is_set", "is_not_set"})
_MAX_TARGETS: Final = 100


def check_placement(report: Report, owner: Plain, at: Path) -> None:
    """Constraints, affinities and spreads of a job, group or task."""
    for path, item in mappings(owner, "constraints", at):
        _check_condition(report, item, path)
    for path, item in mappings(owner, "affinities", at):
        if text(item, "operator").startswith("distinct_"):
            report.add((*path, "operator"), f"{item['operator']} is for constraints only")
        else:
            _check_condition(report, item, path)
    for path, item in mappings(owner, "spreads", at):
        targets = item.get("targets")
        shares = (
            [held for held in targets.values() if isinstance(held, int)] if isinstance(targets, dict) else []
        )
        if sum(shares) > _MAX_TARGETS:
            report.add((*path, "targets"), f"add up to {sum(shares)} percent", "at most 100")


def check_agreement(report: Report, conditions: Iterable[tuple[Path, Plain]]) -> None:
    """All of *conditions* have to hold at once: one attribute cannot equal two values, nor be set and not set."""
    wanted: dict[str, str] = {}
    absent: set[str] = set()
    for path, item in conditions:
        attribute, operator, value = text(item, "attribute"), text(item, "operator", "="), text(item, "value")
        if operator == "=" and wanted.setdefault(attribute, value) != value:
            hint = "no node is both; for one of several use operator: regexp"
            report.add((*path, "value"), f"{attribute} is to be {wanted[attribute]!r} already", hint)
        if operator == "is_not_set":
            absent.add(attribute)
        if attribute in absent and (operator == "is_set" or attribute in wanted):
            report.add(path, f"{attribute} is to be set and not to be set", "keep one of the two")


def _check_condition(report: Report, item: Plain, path: Path) -> None:
    operator = text(item, "operator", "=")
    value = text(item, "value")
    if operator == "distinct_hosts":
        _check_distinct_hosts(report, item, path)
        return
    if "attribute" not in item:
        report.add(path, "attribute is missing")
    if operator == "distinct_property":
        if value and not (value.isascii() and value.isdigit() and int(value[:9]) > 0):
            report.add((*path, "value"), f"{value!r} is no number", "how many may share a value; default 1")
    elif operator in _WITHOUT_VALUE:
        if value:
            report.add((*path, "value"), f"{operator} has no value", "leave it out")
    elif "value" not in item:
        report.add(path, "value is missing", f"what {operator} compares with")
    else:
        _check_value(report, operator, value, (*path, "value"))


def _check_distinct_hosts(report: Report, item: Plain, path: Path) -> None:
    if "attribute" in item:
        report.add((*path, "attribute"), "distinct_hosts compares nothing", "leave attribute out")
    if text(item, "value") not in {"", "true"}:
        report.add((*path, "value"), "distinct_hosts has no value", "leave it out")


def _check_value(report: Report, operator: str, value: str, path: Path) -> None:
    if operator == "regexp":
        try:
            check_re2(value)
        except ValueError as error:
            message, _, hint = str(error).partition("; ")
            report.add(path, f"{value!r} {message}", hint)
    elif operator.startswith("set_contains") and not any(item.strip() for item in value.split(",")):
        report.add(path, f"{operator} of nothing is met by every node or none", "write items like ssd,gpu")
    elif operator == "version" and not all(
        _VERSION_TERM.fullmatch(term.strip()) for term in value.split(",")
    ):
        report.add(path, f"{value!r} is no version condition", "write it like >= 1.2, < 2")
