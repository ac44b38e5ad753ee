"""`trueup templates`: what jobs are made from."""

import click

from cli.blocks import Column
from cli.listing import Listing, run
from cli.options import Command, output_option, watch_option
from cli.views import TemplateView


def parameters(template: TemplateView) -> str:
    """Its parameters; those without a default must be given, and are marked."""
    return " ".join(
        name if isinstance(schema, dict) and "default" in schema else f"{name}*"
        for name, schema in sorted(template.parameters.items())
    )


LISTING = Listing(
    path="/templates",
    kind=TemplateView,
    columns=(
        Column("NAME", lambda template: template.name),
        Column("JOBS", lambda template: str(len(template.jobs))),
        Column("MADE FROM IT", lambda template: " ".join(template.jobs), wide=True),
        Column("PARAMETERS (* = MUST BE GIVEN)", parameters),
    ),
    name=lambda template: template.name,
    empty="no templates",
)


@click.command(cls=Command)
@output_option()
@watch_option()
def command(output: str, watch: bool) -> None:
    """List templates, their parameters, and how many jobs are made from them."""
    run(LISTING, output=output, stay=watch)
