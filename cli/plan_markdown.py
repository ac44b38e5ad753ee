"""A plan as a comment for a pull request: safe whatever names and values hold, and short enough to be accepted.

Everything that comes from specs stands in code: in fences longer than any run of backticks in them, or, in the title of
a section, as `<code>` with its characters as entities. So nothing of it is a heading, a link, a mention, math or HTML.
What needs a look comes first, what does not fit is counted.
"""

import difflib
import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Final

from cli.clean import clean
from cli.plan_lines import changed_jobs, loss_lines, move_lines, sum_line
from cli.wording import held_words
from reconciler.report import FieldChange, JobPlan, PlanReport
from trueup.models.errors import SpecError

MAX_BYTES: Final = 60_000
"""GitHub refuses comments above 65,536 characters, and a character has a byte at least."""
_MAX_JOB_BYTES: Final = 10_000
_MAX_MESSAGES: Final = 20
_MAX_FIELD_LINES: Final = 40
_MAX_LINE: Final = 300
"""Bytes."""
_MAX_NAME: Final = 80
_WORDS: Final = {"create": "is new", "update": "changes", "delete": "is removed", "none": "moves"}


def plan_markdown(report: PlanReport, errors: Sequence[SpecError], warnings: Sequence[str]) -> str:
    """The comment: sums, what is held, errors, warnings, and a section for each job, folded away."""
    parts = ["### trueup plan", f"**{sum_line(report).removeprefix('Plan: ')}**"]
    if report.held is not None:
        parts += ["**This revision would be held.**", _fenced(held_words(report.held).splitlines())]
    if errors:
        count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
        parts += [f"**{count}:** these documents stay at their last good version.", _listed(errors)]
    if warnings:
        parts += ["**Warnings:**", _listed(warnings)]
    lost = [str(one) for one in loss_lines(report)]
    parts += ["**If a node is lost after this:**", _listed(lost)] if lost else []
    base = code(report.base_revision or "nothing")
    tail = f"Revision {code(report.revision)} on {base}, index {report.index}"
    room = MAX_BYTES - sum(_bytes(part) + 2 for part in [*parts, tail])
    return "\n\n".join([*parts, *_sections(report, room), tail]) + "\n"


def code(text: str) -> str:
    """*text* as a code span."""
    shown = _shown(text)
    fence = "`" * (_longest_run(shown) + 1)
    space = " " if shown.startswith("`") or shown.endswith("`") or not shown.strip() else ""
    return f"{fence}{space}{shown}{space}{fence}"


def _title(text: str) -> str:
    """*text* as HTML: a title is no Markdown, and in `<code>` no forge looks for mentions."""
    shown = clean(text[:_MAX_NAME])
    return f"<code>{re.sub('[^A-Za-z0-9 -]', lambda found: f'&#{ord(found[0])};', shown)}</code>"


def _sections(report: PlanReport, room: int) -> list[str]:
    """Those that fit, and how many do not; what is removed or found no room comes first."""
    jobs = sorted(changed_jobs(report), key=_urgency)
    room -= 200
    found: list[str] = []
    for number, job in enumerate(jobs):
        section = _section(job, min(room, _MAX_JOB_BYTES))
        room -= _bytes(section) + 2
        if room < 0:
            left = len(jobs) - number
            more = f"{left} more {'job is' if left == 1 else 'jobs are'} left out here"
            return [*found, f"**{more}; `trueup plan` shows them all.**"]
        found.append(section)
    return found


def _urgency(job: JobPlan) -> int:
    if job.action == "delete":
        return 0
    return 1 if job.unplaced else 2


def _section(job: JobPlan, room: int) -> str:
    title = f"{_title(job.name)} {_WORDS[job.action]}{_counts(job)}"
    body = _Body(room - _bytes(title) - 200)
    if job.action == "update":
        for change in job.diff:
            body.add([f"@@ {change.path} @@", *_difference(change)])
    body.add(str(line) for line in move_lines(job))
    return "\n\n".join([f"<details><summary>{title}</summary>", *body.parts(), "</details>"])


class _Body:
    """Fenced blocks of one section, as far as there is room."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._blocks: list[list[str]] = []
        self._left = 0

    def add(self, lines: Iterable[str]) -> None:
        block: list[str] = []
        for line in lines:
            shown = _shown(line)
            self._room -= _bytes(shown) + 1
            if self._room < 0:
                self._left += 1
            else:
                block.append(shown)
        if block:
            self._room -= 20
            self._blocks.append(block)

    def parts(self) -> list[str]:
        more = (
            [f"{self._left} more lines are left out here; `trueup plan` shows them all."]
            if self._left
            else []
        )
        return [*(_fenced(block, "diff") for block in self._blocks), *more]


def _counts(job: JobPlan) -> str:
    counts = [
        (sum(getattr(group, field) for group in job.groups.values()), words)
        for field, words in (
            ("place", "to place"),
            ("in_place", "in place"),
            ("destructive_total", "to replace"),
            ("migrate", "to migrate"),
            ("canary", "as canaries"),
            ("stop", "to stop"),
        )
    ]
    counts.append((sum(one.count for one in job.unplaced), "<b>without room</b>"))
    shown = ", ".join(f"{count} {words}" for count, words in counts if count)
    return f": {shown}" if shown else ""


def _difference(change: FieldChange) -> list[str]:
    """Both values as lines of YAML, with those that differ and one around them."""
    before, after = _value_lines(change.before), _value_lines(change.after)
    found = list(difflib.unified_diff(before, after, n=1, lineterm=""))[2:]
    lines = ["…" if line.startswith("@@") else line for line in found][1:]
    left = len(lines) - _MAX_FIELD_LINES
    return lines if left <= 0 else [*lines[:_MAX_FIELD_LINES], f"… {left} more lines"]


def _value_lines(value: Any) -> list[str]:  # noqa: ANN401 - whatever a spec can hold
    import yaml  # only with what differs

    if value is None:
        return []
    written: str = yaml.dump(
        value, Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=10**6, default_flow_style=False
    )
    return written.removesuffix("...\n").splitlines()


@cache
def _dumper() -> type[Any]:
    """Writes texts of several lines as such."""
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    def text(dumper: yaml.SafeDumper, held: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", held, style="|" if "\n" in held else None)

    Dumper.add_representer(str, text)
    return Dumper


def _listed(messages: Sequence[object]) -> str:
    shown = [str(message) for message in messages[:_MAX_MESSAGES]]
    if len(messages) > _MAX_MESSAGES:
        shown.append(f"and {len(messages) - _MAX_MESSAGES} more")
    return _fenced(shown)


def _fenced(lines: Iterable[str], info: str = "") -> str:
    shown = [_shown(line) for line in lines]
    fence = "`" * max(3, max((_longest_run(line) for line in shown), default=0) + 1)
    return "\n".join([fence + info, *shown, fence])


def _shown(line: str) -> str:
    return clean(line[:_MAX_LINE]).encode()[:_MAX_LINE].decode(errors="ignore")


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)


def _bytes(text: str) -> int:
    return len(text.encode())
