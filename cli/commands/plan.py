"""`trueup plan`: what applying specs would do, by the very functions that apply them. Changes nothing anywhere."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from cli.failures import CHANGES, FAILED, USAGE, Failed, say, warn
from cli.options import Command, output_option
from cli.output import json_text, print_blocks
from cli.plan_inputs import CountedIds, PlanInput, data_input, live_input, nodes_file_input, state_file_input
from cli.settings import settings
from cli.spec_trees import DEFAULT_SPECS, LoadedSpecs, load_specs
from cli.system import SystemClock
from cli.work_tree import is_ancestor
from reconciler.dry_run import dry_run
from reconciler.report import PlanReport, report_document
from trueup.models.ids import NodeId
from trueup.models.state import ClusterState

_SHOWN_NAMES = 10
_SHORT_COMMIT = 8


class MomentType(click.ParamType[datetime]):
    """A point in time, RFC 3339 with its zone."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:  # noqa: ANN401
        """Reads the text; a usage error if it is none, or has no zone."""
        if isinstance(value, datetime):
            return value
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            self.fail(f"{value!r} is no time; write it like 2026-06-01T12:00:00Z", param, ctx)
        return moment.astimezone(UTC)


_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(cls=Command)
@click.argument("specs", nargs=-1, metavar="[SPECS…]", type=click.Path(path_type=Path))
@click.option(
    "--detailed-exitcode", is_flag=True, help="End with 2 if there are changes, or it would be held."
)
@click.option("--offline", is_flag=True, help="Ask no control plane: plan on --nodes or --state.")
@click.option("--nodes", type=_FILE, metavar="FILE", help="An empty cluster of these nodes (JSON or YAML).")
@click.option("--state", type=_FILE, metavar="FILE", help="What `trueup export` wrote, or one like it.")
@click.option("--now", type=MomentType(), metavar="TIME", help="The clock's reading for --nodes and --state.")
@click.option(
    "--lose",
    metavar="NODE|each",
    help="Also show what the loss of that node, or of each in turn, would leave without room.",
)
@output_option(("text", "json", "yaml", "markdown"))
@click.pass_context
def command(
    context: click.Context,
    specs: tuple[Path, ...],
    detailed_exitcode: bool,
    offline: bool,
    nodes: Path | None,
    state: Path | None,
    now: datetime | None,
    lose: str | None,
    output: str,
) -> None:
    """Show what applying SPECS (`specs`) would do: to the live control plane, to --data DIR, or --offline.

    With --state and without SPECS, the state's own jobs are planned. Ends with 1 if documents have errors.
    """
    _check_usage(offline, nodes, state, now)
    begin = _input(nodes, state, now)
    loaded = _specs(specs, is_whole=state is not None)
    desired = None if loaded is None else loaded.desired
    lost = None if lose is None else _lost_nodes(begin.state, lose)
    report = dry_run(begin.state, desired, begin.now, CountedIds(), lose=lost)
    warnings = [*begin.warnings, *_ancestry_warnings(report, loaded)]
    report = msgspec.structs.replace(report, warnings=(*report.warnings, *warnings))
    _print(report, output)
    if report.errors:
        context.exit(FAILED)
    if detailed_exitcode and report.has_changes:
        context.exit(CHANGES)


def _check_usage(offline: bool, nodes: Path | None, state: Path | None, now: datetime | None) -> None:
    if nodes is not None and state is not None:
        raise click.UsageError("--nodes and --state exclude each other: a state holds its nodes")
    from_file = nodes is not None or state is not None
    if offline and not from_file:
        raise click.UsageError("--offline wants --nodes FILE or --state FILE")
    if now is not None and not from_file:
        raise click.UsageError("--now goes with --nodes or --state")
    if from_file and "data" in settings().flags:
        raise click.UsageError("--data goes without --nodes and --state: it is a state of its own")


def _input(nodes: Path | None, state: Path | None, now: datetime | None) -> PlanInput:
    machine_now = SystemClock().now()
    if nodes is not None:
        return nodes_file_input(nodes, now or machine_now)
    if state is not None:
        return state_file_input(state, now, machine_now)
    found = settings()
    # Only where it was typed: TRUEUP_DATA is set for a server of this machine, not for a question to another.
    if found.data is not None and "data" in found.flags:
        return data_input(found.data, machine_now)
    return live_input(found)


def _specs(specs: Sequence[Path], *, is_whole: bool) -> LoadedSpecs | None:
    if specs:
        return load_specs(specs)
    if is_whole:
        return None
    if not DEFAULT_SPECS.is_dir():
        raise Failed(f"there is no folder {DEFAULT_SPECS} here; say which specs to plan: `trueup plan SPECS`")
    return load_specs((DEFAULT_SPECS,))


def _lost_nodes(state: ClusterState, lose: str) -> list[NodeId]:
    """The nodes whose loss is asked about, by name."""
    nodes = sorted(state.nodes.values(), key=lambda node: node.name)
    if lose == "each":
        return [node.id for node in nodes if node.status == "ready"]
    found = [node.id for node in nodes if lose in {node.name, node.id}]
    if not found:
        names = ", ".join(node.name for node in nodes[:20]) or "none at all"
        raise Failed(f"--lose {lose}: there is no such node; there are {names}", exit_code=USAGE)
    return found


def _ancestry_warnings(report: PlanReport, loaded: LoadedSpecs | None) -> list[str]:
    base = report.base_revision
    if loaded is None or loaded.commit is None or base is None or base.startswith("dir-"):
        return []
    related = is_ancestor(base, loaded.commit, loaded.folder)
    if related is True:
        return []
    held = () if report.held is None else report.held.removes
    removed = [job.name for job in report.jobs if job.action == "delete"] or list(held)
    names = ", ".join(removed[:_SHOWN_NAMES]) + (", …" if len(removed) > _SHOWN_NAMES else "")
    risk = f"what is removed here ({names})" if removed else "what is removed here"
    risk += " may be what others added since"
    applied, planned = base[:_SHORT_COMMIT], loaded.commit[:_SHORT_COMMIT]
    if related is None:
        words = (
            f"this clone lacks what is applied, {applied}; nobody can say whether {planned} contains it: {risk}; "
            "fetch the whole history (git fetch --unshallow)"
        )
        return [words]
    return [f"what is applied, {applied}, is no ancestor of {planned}: {risk}; merge or rebase first"]


def _print(report: PlanReport, output: str) -> None:
    match output:
        case "json":
            click.echo(json_text(report_document(report)))
        case "yaml":
            from cli.output import yaml_text

            click.echo(yaml_text(report_document(report)), nl=False)
        case "markdown":
            from cli.plan_markdown import plan_markdown

            click.echo(plan_markdown(report, report.errors, report.warnings), nl=False)
        case _:
            from cli.plan_text import plan_blocks

            print_blocks(plan_blocks(report))
    if output != "text":
        return
    for warning in report.warnings:
        warn(warning)
    for error in report.errors:
        say(str(error))
    if report.errors:
        count = len(report.errors)
        raise Failed(
            f"{count} {'error' if count == 1 else 'errors'}: these documents stay at their last good version"
        )
