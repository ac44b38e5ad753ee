"""`trueup validate`: every error of a spec tree at once, each with file, line, column, path and what to do."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from cli.clean import clean
from cli.failures import FAILED, Failed, say, warn
from cli.options import Command, output_option
from cli.output import print_plain
from cli.spec_trees import DEFAULT_SPECS, LoadedSpecs, load_specs
from reconciler.report import error_document
from trueup.models.desired import DesiredState
from trueup.models.errors import SpecError


@click.command(cls=Command)
@click.argument("specs", nargs=-1, metavar="[SPECS…|-]", type=click.Path(path_type=Path, allow_dash=True))
@output_option(("text", "json", "yaml"))
@click.pass_context
def command(context: click.Context, specs: tuple[Path, ...], output: str) -> None:
    """Check specs without a control plane, and name every error.

    SPECS are folders (`specs`), single files, or `-` for stdin. Ends with 0 if all of it is valid, else with 1.
    """
    loaded = load_specs(specs or (DEFAULT_SPECS,))
    errors = loaded.desired.errors
    if output == "text":
        _say(loaded)
    else:
        print_plain(_document(loaded.desired), output)
    if errors:
        context.exit(FAILED)


def error_lines(errors: Sequence[SpecError]) -> Iterator[str]:
    """One line an error: `jobs/web.yaml:12:14: groups[0].count: -1 is less than the minimum of 0`, then its hint."""
    for error in errors:
        yield clean(str(error))


def count_words(number: int, noun: str) -> str:
    """`1 job`, `2 jobs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _say(loaded: LoadedSpecs) -> None:
    for warning in loaded.desired.warnings:
        warn(warning)
    for words in error_lines(loaded.desired.errors):
        say(words)
    errors = loaded.desired.errors
    if errors:
        files = len({error.file for error in errors})
        raise Failed(f"{loaded.words}: {count_words(len(errors), 'error')} in {count_words(files, 'file')}")
    click.echo(clean(f"{loaded.words} is valid: {_contents(loaded.desired)}"))


def _contents(desired: DesiredState) -> str:
    counts = (
        (len(desired.jobs), "job"),
        (len(desired.templates), "template"),
        (len(desired.nodes), "node"),
        (int(desired.cluster is not None), "cluster"),
    )
    return ", ".join(count_words(count, noun) for count, noun in counts if count) or "no documents"


def _document(desired: DesiredState) -> dict[str, object]:
    return {
        "valid": not desired.errors,
        "revision": desired.commit.id,
        "jobs": sorted(desired.jobs),
        "templates": sorted(desired.templates),
        "nodes": sorted(desired.nodes),
        "errors": [error_document(error) for error in desired.errors],
        "warnings": list(desired.warnings),
    }
