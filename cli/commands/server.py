"""`trueup server`: the control plane, until a signal ends it."""

import click

from cli.failures import Failed, say, warn_of_stuck
from cli.log import configure_logging
from cli.options import Command
from cli.server_settings import ServerSettings, server_options
from cli.system import allow_many_files
from cli.until_signal import EndingSignals


@click.command(cls=Command)
@server_options
def command(server: ServerSettings) -> None:
    """Run the control plane: it follows the specs, and keeps the agents that join in line with them.

    The ready line names its address and the command that lets a machine join. Its end, graceful or not, touches
    nothing that runs.
    """
    from cli.wiring import ControlPlane
    from metastore.errors import StoreError
    from trueup.serving import CannotServe

    configure_logging(level=server.log_level, log_format=server.log_format)
    allow_many_files()
    signals = EndingSignals()
    try:
        plane = ControlPlane(server)
        plane.start()
    except (StoreError, CannotServe) as error:
        raise Failed(str(error)) from error
    join = f"trueup agent --server {plane.url} --token-file {server.token_file.absolute()}"
    click.echo(f"trueup server is ready at {plane.url} - let a machine join: {join}")
    signals.wait()
    say("stopping; what runs on the nodes runs on")
    warn_of_stuck(plane.stop())
