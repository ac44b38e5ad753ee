"""`trueup services`: names under which healthy allocations are found."""

import click

from cli.blocks import Cell, Column
from cli.listing import Listing, run
from cli.options import Command, output_option, watch_option
from cli.views import ServiceView


def healthy(service: ServiceView) -> Cell:
    """How many addresses it has; none is bad."""
    count = len(service.addresses)
    return Cell(str(count), "good" if count else "bad")


LISTING = Listing(
    path="/services",
    kind=ServiceView,
    columns=(
        Column("NAME", lambda service: service.name),
        Column("HEALTHY", healthy),
        Column("JOBS", lambda service: ", ".join(sorted({one.job for one in service.addresses})), wide=True),
        Column("ADDRESSES", lambda service: " ".join(one.address for one in service.addresses)),
    ),
    name=lambda service: service.name,
    empty="no job declares a service",
)


@click.command(cls=Command)
@output_option()
@watch_option()
def command(output: str, watch: bool) -> None:
    """List services and the addresses under which they are healthy now."""
    run(LISTING, output=output, stay=watch)
