"""`trueup up`: control plane and agent of this machine in one process, over real loopback HTTP."""

import dataclasses

import click

from cli.agent_settings import AgentSettings, UpSettings, up_options
from cli.failures import Failed, say, warn_of_stuck
from cli.log import configure_logging
from cli.options import Command
from cli.system import allow_many_files
from cli.until_signal import EndingSignals

STOP_TASKS_SECONDS = 60.0


@click.command(cls=Command)
@up_options
def command(up: UpSettings) -> None:
    """Run everything on this machine: a control plane that follows SPECS (`specs`), and an agent that runs them.

    On Ctrl-C or SIGTERM the tasks run on, and the next `trueup up` takes them up again; `trueup down`, or
    `--stop-tasks`, ends them.
    """
    from agent.journal import FolderInUse, JournalUnusable
    from cli.node_wiring import Agent
    from cli.wiring import ControlPlane
    from metastore.errors import FolderTaken, StoreError
    from trueup.serving import CannotServe

    configure_logging(level=up.server.log_level, log_format=up.server.log_format)
    allow_many_files()
    signals = EndingSignals()
    try:
        plane = ControlPlane(up.server, expected_nodes=1)
        plane.start()
    except FolderTaken as error:
        raise Failed(
            f"{error}; `trueup down --data {up.server.data.parent}` ends it with all its tasks"
        ) from error
    except (StoreError, CannotServe) as error:
        raise Failed(str(error)) from error
    try:
        node = Agent(_told_of(up, plane.url), cluster_token=lambda: plane.cluster_token, is_up=True)
    except (FolderInUse, JournalUnusable, CannotServe, Failed) as error:
        plane.stop()
        raise Failed(str(error)) from error
    node.start()
    click.echo(
        f"trueup is ready at {plane.url} - the status page; `trueup status` shows the same. {_edit(up)}"
    )
    signals.wait()
    say(
        "stopping all tasks"
        if up.stop_tasks
        else "stopping; tasks run on, and the next `trueup up` takes them up again"
    )
    stuck = node.stop(stop_tasks_within=STOP_TASKS_SECONDS if up.stop_tasks else None)
    warn_of_stuck([*stuck, *plane.stop()])


def _told_of(up: UpSettings, url: str) -> AgentSettings:
    """The agent's settings, with the control plane it belongs to."""
    ca = up.agent.tls_ca or up.server.tls_cert
    return dataclasses.replace(up.agent, servers=(url,), tls_ca=ca)


def _edit(up: UpSettings) -> str:
    if up.server.git is not None:
        return f"Commit to {up.server.git.urls[0]} to change what runs."
    return f"Edit {', '.join(str(folder) for folder in up.server.specs)} to change what runs."
