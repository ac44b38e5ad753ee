"""Commands people try (`run`, `stop`, `scale`, `drain`, `promote` …): each answers with the edit to commit instead.

Nothing here changes anything. Where the control plane answers, the file and line to edit are named; while the git
host is down, what to type to commit it all the same.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import click

from cli.client import Client, path_of
from cli.emergency import emergency_words
from cli.failures import Failed
from cli.options import Command
from cli.settings import settings
from cli.views import JobView, SourceView, StatusView, view

_LOOK_SECONDS = 2.0
_ANY_ARGUMENTS = {"ignore_unknown_options": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was typed after the command.

    *job* is the one it names, if the control plane answers and knows it; *source* how its source does then.
    """

    arguments: tuple[str, ...]
    name: str
    job: JobView | None
    source: SourceView = field(default_factory=SourceView)
    address: str = ""

    @property
    def document(self) -> str:
        """The job's document in words, with file and line where they are known."""
        words = f"the document of job {self.name}" if self.name else "the document of the job"
        return f"{words} ({self.job.place})" if self.job is not None and str(self.job.place) else words

    def meanwhile(self, subject: str) -> str:
        """What to type while the git host is down; empty while it is not."""
        return "" if self.job is None else emergency_words(self.source, self.job.place, subject, self.address)


def _edit(name: str, edit: Callable[[Asked], str], *, about_job: bool = True) -> click.Command:
    def answer(arguments: tuple[str, ...]) -> None:
        word = next((one for one in arguments if not one.startswith("-") and not one.isdigit()), "")
        asked = Asked(arguments=arguments, name=word, job=None)
        if about_job and word:
            asked = _look_up(asked)
        raise Failed(f"trueup {name} changes nothing: what runs follows from the specs.\n{edit(asked)}")

    command = Command(
        name, callback=answer, hidden=True, context_settings=_ANY_ARGUMENTS, help="Says what to edit."
    )
    command.params.insert(0, click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED))
    return command


def _look_up(asked: Asked) -> Asked:
    """With the job and the source, where the control plane answers; the edit is worth telling all the same."""
    try:
        client = Client(settings(), read_seconds=_LOOK_SECONDS)
        job = view(client.get(path_of("jobs", asked.name)).body, JobView)
        source = view(client.get("/status").body, StatusView).source
    except Failed:
        return asked
    return replace(asked, job=job, source=source, address=client.address)


def _run(asked: Asked) -> str:
    files = [argument for argument in asked.arguments if argument.endswith((".yaml", ".yml"))]
    what = files[0] if files else "the document (kind: Job)"
    return f"Put {what} into the specs and commit it; `trueup plan` shows what that will do."


def _stop(asked: Asked) -> str:
    return (
        f"Remove {asked.document} and commit; to stop it and keep it, set there:\n\n    suspended: true\n"
        f"{asked.meanwhile(f'Stop {asked.name}')}"
    )


def _scale(asked: Asked) -> str:
    count = next((argument for argument in asked.arguments if argument.isdigit()), "N")
    groups = [] if asked.job is None else [group.name for group in asked.job.groups]
    group = next(
        (name for name in asked.arguments if name in groups), groups[0] if groups else asked.name or "app"
    )
    return (
        f"In {asked.document}, set the group's count and commit:\n\n"
        f"    groups:\n      - name: {group}\n        count: {count}\n"
        f"{asked.meanwhile(f'Scale {asked.name} to {count}')}"
    )


def _restart(asked: Asked) -> str:
    now = "" if asked.job is None else f" (now {str(asked.job.spec.get('restart_token', ''))!r})"
    return (
        f"In {asked.document}, change the token{now} and commit; every allocation restarts, rolling:\n\n"
        '    restart_token: "1"\n'
        f"{asked.meanwhile(f'Restart {asked.name}')}"
    )


def _rollback(_asked: Asked) -> str:
    return "Revert the commit and push: `git revert REVISION`. `trueup revisions` lists them."


def _drain(asked: Asked) -> str:
    node = asked.name or "NODE"
    return (
        "Commit this document (or its drain, where the node has a document); removing it ends the drain:\n\n"
        f"    kind: Node\n    name: {node}\n    drain: {{deadline: 1h}}\n\n"
        f"`trueup wait --drained {node}` waits until the node is empty."
    )


def _promote(asked: Asked) -> str:
    digest = "DIGEST" if asked.job is None else asked.job.digest
    hint = "\n`trueup status JOB` shows the digest." if asked.job is None else ""
    return (
        f"In {asked.document}, name the version whose canaries go ahead and commit:\n\n"
        f'    update:\n      promote: "{digest}"\n{hint}'
    )


run = _edit("run", _run)
apply = _edit("apply", _run)
stop = _edit("stop", _stop)
delete = _edit("delete", _stop)
scale = _edit("scale", _scale)
restart = _edit("restart", _restart)
rollback = _edit("rollback", _rollback)
drain = _edit("drain", _drain, about_job=False)
promote = _edit("promote", _promote)
