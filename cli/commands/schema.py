"""`trueup schema`: the JSON Schema that validation uses, for editors and other tools."""

from importlib.resources import files

import click

from cli.options import Command

_KINDS = ("job", "template", "node", "cluster")


@click.command(cls=Command)
@click.argument("kind", type=click.Choice(_KINDS, case_sensitive=False))
def command(kind: str) -> None:
    """Print the JSON Schema of a KIND of document."""
    click.echo(files("schemas").joinpath(f"{kind.lower()}.json").read_text(encoding="utf-8"), nl=False)
