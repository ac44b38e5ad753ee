"""`trueup version`: which release this is, and which one the control plane runs."""

from importlib.metadata import version

import click

from cli.client import Client
from cli.failures import Failed
from cli.options import Command, output_option
from cli.output import print_plain
from cli.settings import settings

_ANSWER_SECONDS = 1.0


@click.command(cls=Command)
@output_option(("text", "json", "yaml"))
def command(output: str) -> None:
    """Print the version of this program, and of the control plane if it answers within a second."""
    found: dict[str, str | None] = {"client": version("trueup"), "server": None}
    held = settings()
    try:
        found["server"] = str(
            Client(held, read_seconds=_ANSWER_SECONDS).get("/status").body.get("version", "")
        )
    except Failed:
        found["server"] = None
    if output != "text":
        print_plain(found, output)
        return
    click.echo(f"trueup {found['client']}")
    if found["server"]:
        click.echo(f"control plane {found['server']} at {held.address}")
