"""`trueup agent`: a node agent, until a signal ends it."""

import click

from cli.agent_settings import AgentSettings, agent_options
from cli.failures import Failed, say, warn_of_stuck
from cli.log import configure_logging
from cli.options import Command
from cli.system import allow_many_files
from cli.tokens import read_token
from cli.until_signal import EndingSignals


@click.command(cls=Command)
@agent_options
def command(agent: AgentSettings) -> None:
    """Run a node agent: it joins the control plane with the cluster token, and runs what it is given.

    The token is needed once; then the node has a secret of its own. Its end, graceful or not, ends no task: the next
    agent of the same data folder takes them up again.
    """
    from agent.journal import FolderInUse, JournalUnusable
    from cli.node_wiring import Agent
    from trueup.serving import CannotServe

    configure_logging(level=agent.log_level, log_format=agent.log_format)
    allow_many_files()
    signals = EndingSignals()
    token_file = agent.token_file
    if token_file is not None:
        read_token(token_file)
    try:
        node = Agent(
            agent,
            cluster_token=lambda: None if token_file is None else read_token(token_file),
            is_up=False,
        )
    except (FolderInUse, JournalUnusable, CannotServe) as error:
        raise Failed(str(error)) from error
    node.start()
    limits = limits_of(refuses_processes=node.refuses_processes, refuses_root=node.refuses_root)
    servers = ", ".join(agent.servers)
    click.echo(f"trueup agent {agent.name} is ready at {node.url}, for {servers}{limits}")
    signals.wait()
    say("stopping; tasks run on")
    warn_of_stuck(node.stop())


def limits_of(*, refuses_processes: bool, refuses_root: bool) -> str:
    """What tasks may not do here that an operator may expect, and the line that allows it; empty if nothing."""
    if refuses_processes:
        return (
            "; it runs containers only: --enable-process, or `drivers: {process: {enabled: true}}` in the file of "
            "--config, lets jobs run programs of this machine"
        )
    if refuses_root:
        return (
            "; it runs no program as root: give each task a `user`, or allow it by "
            "`drivers: {process: {users: [root]}}` in the file of --config"
        )
    return ""
