"""`trueup export`: the state of one index, as `trueup plan --state` reads it."""

import json
import sys

import click

from cli.client import Client
from cli.failures import Failed
from cli.options import Command
from cli.settings import settings


@click.command(cls=Command)
def command() -> None:
    """Write the state that `trueup plan --offline --state` reads: jobs, nodes, allocations, all of one index.

    It holds no secret values. It is the best attachment to a bug report: `plan` on it shows what the planner saw.
    """
    client = Client(settings())
    with client.stream("/state") as chunks:
        content = b"".join(chunks)
    try:
        json.loads(content)
    except ValueError as error:
        raise Failed(f"{client.address} did not answer with the whole state; try again") from error
    sys.stdout.buffer.write(content + b"\n")
