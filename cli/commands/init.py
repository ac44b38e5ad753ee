"""`trueup init`: example specs to start from, the same that a clone has in `specs/`."""

import os
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import click

from cli.clean import clean
from cli.failures import Failed
from cli.options import Command

EXAMPLES = "examples"
"""The folder beside this package's modules; in a clone it is a link to `specs/`."""


@click.command(cls=Command)
@click.argument("folder", metavar="[DIR]", default="specs", type=click.Path(path_type=Path, file_okay=False))
def command(folder: Path) -> None:
    """Write example specs to DIR (`specs`): a template, a web service made from it, a schedule, a system job.

    A file that is there already is an error, and then nothing is written.
    """
    examples = list(_walk(files("cli").joinpath(EXAMPLES), ""))
    present = [folder / path for path, _ in examples if os.path.lexists(folder / path)]
    if present:
        raise Failed(f"{present[0]} is there already; name another folder: `trueup init DIR`")
    try:
        for path, example in examples:
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                file.write(example.read_bytes())
    except OSError as error:
        raise Failed(f"cannot write {error.filename or folder}: {error.strerror}") from error
    for path, _ in examples:
        click.echo(clean(str(folder / path)))
    click.echo(f"\nNow run them: trueup up {clean(str(folder))}", err=True)


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    for entry in sorted(folder.iterdir(), key=lambda one: one.name):
        path = f"{prefix}{entry.name}"
        if entry.is_dir():
            yield from _walk(entry, f"{path}/")
        else:
            yield path, entry
