"""The entry point and the parser's root. Commands are imported when they are called, so that each starts fast.

Exit codes are the contract's, not click's: a usage error is 64, since 2 is `plan --detailed-exitcode` with changes.
"""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import click

from cli.failures import FAILED, INTERRUPTED, USAGE, Failed, say
from cli.settings import global_options, settings
from cli.system import collect_seldom
from trueup import __version__

ROOMS: Final = ("trueup", "reconciler", "metastore", "agent", "api", "schemas")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A command the parser knows without importing it: its module holds it as `command` (or under *attribute*)."""

    module: str
    help: str
    attribute: str = "command"


SECTIONS: Final[dict[str, dict[str, Entry]]] = {
    "Run": {
        "up": Entry(module="up", help="Run everything on this machine."),
        "server": Entry(module="server", help="Run the control plane."),
        "agent": Entry(module="agent", help="Run a node agent."),
        "down": Entry(module="down", help="End all tasks of this machine's data folder."),
    },
    "Specs": {
        "init": Entry(module="init", help="Write example specs to start from."),
        "validate": Entry(module="validate", help="Check specs and name every error."),
        "plan": Entry(module="plan", help="Show what applying specs would do, changing nothing."),
        "schema": Entry(module="schema", help="Print the JSON Schema of a kind of document."),
    },
    "Look": {
        "status": Entry(module="status", help="Show sync and health of everything, or of one job."),
        "nodes": Entry(module="nodes", help="List nodes."),
        "allocs": Entry(module="allocs", help="List allocations."),
        "services": Entry(module="services", help="List services and their healthy addresses."),
        "templates": Entry(module="templates", help="List templates."),
        "revisions": Entry(module="revisions", help="List revisions of the specs, newest first."),
        "events": Entry(module="events", help="Show what happened."),
        "explain": Entry(module="explain", help="Say why something runs where it runs, or why not."),
        "logs": Entry(module="logs", help="Print what a task wrote."),
        "wait": Entry(module="wait", help="Wait until a revision is applied and healthy."),
        "export": Entry(module="export", help="Write the state that `plan --state` reads."),
    },
    "Other": {
        "version": Entry(module="version", help="Print the version."),
        "completion": Entry(module="completion", help="Print the completion script of a shell."),
    },
}
"""What `trueup --help` lists, in this order."""

HIDDEN: Final[dict[str, Entry]] = {
    "describe": Entry(module="explain", help="Another name of `explain`."),
    **{
        name: Entry(module="edits", attribute=name, help="Says which edit to commit instead.")
        for name in ("run", "apply", "stop", "delete", "scale", "restart", "rollback", "drain", "promote")
    },
}


class Root(click.Group):
    """`trueup` itself: finds commands by name, ends with the contract's exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """All commands but hidden ones, in the order of help."""
        return [name for entries in SECTIONS.values() for name in entries]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Imports and returns a command; None if there is none of that name."""
        entry = _entries().get(cmd_name)
        return None if entry is None else _load(entry)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the command an argument names; a near miss is answered with the names that come close."""
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            raise click.exceptions.NoSuchCommand(
                error.command_name, possibilities=list(_entries()), ctx=ctx
            ) from None

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Commands first: they are what a newcomer looks for."""
        self.format_commands(ctx, formatter)
        click.Command.format_options(self, ctx, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """Writes the sections of the help without importing any command."""
        for title, entries in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, entry.help) for name, entry in entries.items()])

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's signature
        """Runs the command; what nobody expected becomes one line, with the traceback at `--log-level debug`."""
        try:
            return super().invoke(ctx)
        except (
            click.ClickException,
            click.exceptions.Exit,
            click.Abort,
            OSError,
            KeyboardInterrupt,
        ) as error:
            if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
                raise _unexpected(ctx, error) from error
            raise
        except Exception as error:
            raise _unexpected(ctx, error) from error

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: ARG002 - click's signature
        windows_expand_args: bool = True,  # noqa: ARG002 - click's signature
        **extra: Any,  # noqa: ANN401 - click's signature
    ) -> NoReturn:
        """Parses, runs and exits."""
        sys.exit(self._run(args, prog_name or "trueup", complete_var, extra))

    def _run(
        self, args: Sequence[str] | None, prog_name: str, complete_var: str | None, extra: dict[str, Any]
    ) -> int:
        try:
            code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        except click.UsageError as error:
            error.show()
            return USAGE
        except click.ClickException as error:
            error.show()
            return error.code if isinstance(error, Failed) else FAILED
        except click.Abort:
            return INTERRUPTED
        return code if isinstance(code, int) else 0


def main() -> NoReturn:
    """The `trueup` command."""
    collect_seldom()
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets its escape, never an exception.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if (problem := find_decoy(Path(__file__).resolve().parent.parent)) is not None:
        say(f"Error: {problem}")
        sys.exit(1)
    cli.main(prog_name="trueup")


def find_decoy(home: Path) -> str | None:
    """The first room that Python would import from elsewhere than *home*, in words; None if all are ours.

    The rooms have names as generic as `agent` and `api`: PYTHONPATH or another distribution can put a stranger in
    their place, and then half of this program would be someone else's.
    """
    for room in ROOMS:
        spec = importlib.util.find_spec(room)
        origin = None if spec is None else spec.origin
        if origin is None or Path(origin).resolve().parent.parent != home:
            return (
                f"the package {room} is {'missing' if origin is None else f'taken from {origin}'}, not from {home}; "
                f"install trueup into an environment of its own (pipx, venv) and unset PYTHONPATH"
            )
    return None


def _entries() -> dict[str, Entry]:
    return {name: entry for entries in (*SECTIONS.values(), HIDDEN) for name, entry in entries.items()}


def _load(entry: Entry) -> click.Command:
    command: click.Command = getattr(importlib.import_module(f"cli.commands.{entry.module}"), entry.attribute)
    return command


def _unexpected(context: click.Context, error: Exception) -> Failed:
    with context.scope():
        if settings().log_level == "debug":
            import traceback  # 10 ms that no other run needs

            traceback.print_exception(error, file=sys.stderr)
    detail = str(error) or "no detail"
    return Failed(f"unexpected {type(error).__name__}: {detail} (--log-level debug shows where)")


@click.command(
    cls=Root,
    name="trueup",
    context_settings={"auto_envvar_prefix": "TRUEUP", "help_option_names": ["-h", "--help"]},
)
# By its usual name it would take the section `version` of an options file for its own value.
@click.version_option(__version__, "--version", "show_version", message="trueup %(version)s")
def cli() -> None:
    """Commit YAML, and it runs: keeps machines in line with the job specs in a directory or a git repository."""


cli.params[:0] = global_options()
