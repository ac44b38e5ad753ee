"""`trueup version`: which release this is, and which one the control plane runs."""

import socket
from urllib.parse import urlsplit

import click

from cli.failures import Failed
from cli.options import Command, output_option
from cli.settings import Settings, settings
from trueup import __version__

_ANSWER_SECONDS = 1.0


@click.command(cls=Command)
@output_option(("text", "json", "yaml"))
def command(output: str) -> None:
    """Print the version of this program, and of the control plane if it answers within a second."""
    held = settings()
    server = _server_version(held) if _listens(held.address) else None
    if output != "text":
        from cli.output import print_plain

        print_plain({"client": __version__, "server": server}, output)
        return
    click.echo(f"trueup {__version__}")
    if server:
        click.echo(f"control plane {server} at {held.address}")


def _listens(address: str) -> bool:
    """Whether anybody is there to ask: without, the HTTP client need not even be imported."""
    try:
        parts = urlsplit(address)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=_ANSWER_SECONDS).close()
    except (OSError, ValueError):
        return False
    return True


def _server_version(held: Settings) -> str | None:
    from cli.client import Client

    try:
        body = Client(held, read_seconds=_ANSWER_SECONDS).get("/status").body
    except Failed:
        return None
    return str(body.get("version") or "") or None if isinstance(body, dict) else None
