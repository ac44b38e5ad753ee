"""`trueup events`: what happened, and with `-f` what happens."""

import json
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

import click

from cli.blocks import Column, Line, clock_time, line
from cli.client import Client, Gone, Unreachable
from cli.failures import warn
from cli.listing import Listing, as_result
from cli.options import Command, output_option
from cli.output import RETRY_SECONDS, json_text, show, use_color, yaml_text
from cli.plain_text import plain_text
from cli.settings import settings
from cli.views import EventView, view

# The server sends a comment at least every 15 s: silence much longer is a dead connection.
_SILENCE_SECONDS = 60.0

_COLUMNS: tuple[Column[EventView], ...] = (
    Column("TIME", lambda event: clock_time(event.at)),
    Column("TYPE", lambda event: event.type),
    Column("JOB", lambda event: event.job or "-"),
    Column("NODE", lambda event: event.node or "-"),
    Column("ALLOCATION", lambda event: event.allocation, wide=True),
    Column("REVISION", lambda event: event.revision, wide=True),
    Column("MESSAGE", lambda event: event.message),
)
_FORMS = ("table", "wide", "json", "yaml")


@click.command(cls=Command)
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens, until interrupted.")
@click.option(
    "-n", "--limit", type=click.IntRange(min=0), default=50, show_default=True, help="How many past ones."
)
@click.option("--job", help="Only of this job.")
@click.option("--node", help="Only of this node.")
@click.option("--type", help="Only of this type.")
@click.option("--revision", help="Only of this revision.")
@output_option(_FORMS)
def command(
    follow: bool,
    limit: int,
    job: str | None,
    node: str | None,
    type: str | None,  # noqa: A002 - the option's name
    revision: str | None,
    output: str,
) -> None:
    """Show what happened, oldest first.

    With `-f`, `-o json` prints one event a line. A control plane that goes away is waited for; what happened
    meanwhile is caught up on.
    """
    client = Client(settings())
    filters: dict[str, Any] = {"job": job, "node": node, "type": type, "revision": revision}
    # Asked for first, so that what happens between the two requests is in the stream, not lost.
    index = client.get("/status").index if follow else 0
    past = client.list("/events", at_most=limit, reverse=True, **filters).body[::-1] if limit else []
    if not follow:
        show(as_result(_listing(), past, 0), output)
        return
    _print_more([one for one in past if view(one, EventView).index <= index], output)
    for items in follow_events(client, index, filters):
        _print_more(items, output)


def follow_events(client: Client, index: int, filters: dict[str, Any]) -> Iterator[list[Any]]:
    """Events newer than *index*, those of one change together, for ever; broken connections are taken up again."""
    told = False
    while True:
        problem = f"the control plane at {client.address} ended the stream"
        try:
            with client.stream(
                "/events",
                read_seconds=_SILENCE_SECONDS,
                headers={"Accept": "text/event-stream", "Last-Event-ID": str(index)},
                **filters,
            ) as chunks:
                told = False
                for identifier, data in messages(chunks):
                    index = identifier
                    if data:
                        yield json.loads(data)["items"]
        except Gone as error:
            warn(f"{error.message}; some events are missed")
            index = client.get("/status").index
            continue
        except Unreachable as error:
            problem = error.message
        if not told:
            warn(f"{problem}; trying again")
        told = True
        time.sleep(RETRY_SECONDS)


def messages(chunks: Iterable[bytes]) -> Iterator[tuple[int, str]]:
    """The messages of a stream of server-sent events: id and data; data is empty where only the id moved on."""
    identifier, data = 0, ""
    for read in _lines(chunks):
        field, _, value = read.partition(":")
        value = value.removeprefix(" ")
        if field == "id" and value.isdigit():
            identifier = int(value)
        elif field == "data":
            data += value
        elif not read:
            if identifier:
                yield identifier, data
            identifier, data = 0, ""


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    held = b""
    for chunk in chunks:
        *whole, held = (held + chunk).split(b"\n")
        for one in whole:
            yield one.removesuffix(b"\r").decode("utf-8", "replace")


def _listing() -> Listing[EventView]:
    return Listing(
        path="/events",
        kind=EventView,
        columns=_COLUMNS,
        name=lambda event: event.type,
        empty="nothing happened yet",
    )


def _print_more(items: list[Any], output: str) -> None:
    """Prints events as they come; as text, lines without columns: no widths are known yet."""
    if output == "json":
        text = "".join(json_text(item, indent=None) + "\n" for item in items)
    elif output == "yaml":
        text = "".join("---\n" + yaml_text(item) for item in items)
    else:
        text = plain_text(map(_as_line, items), color=use_color())
    click.echo(text, nl=False, color=True)
    sys.stdout.flush()


def _as_line(item: object) -> Line:
    event = view(item, EventView)
    subject = " ".join(part for part in (event.job, event.node) if part)
    return line(
        "  ".join(part for part in (clock_time(event.at), event.type, subject, event.message) if part)
    )
