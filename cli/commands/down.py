"""`trueup down`: ends all tasks of this machine's data folder, and the agent that runs them."""

import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import click

from cli.agent_settings import UP_DATA
from cli.failures import Failed, TimedOut, say
from cli.log import configure_logging
from cli.options import DURATION, Command
from cli.server_settings import default_data
from cli.settings import settings
from trueup.models.units import Duration

_AGENT_SECONDS: Final = 20.0
_LOOK_SECONDS: Final = 0.05


@click.command(cls=Command)
@click.option("--purge", is_flag=True, help="Also delete that data folder: store, logs, files of tasks.")
@click.option(
    "--timeout", type=DURATION, default="1m", show_default=True, help="How long tasks may take to end."
)
def command(purge: bool, timeout: Duration) -> None:
    """End everything of this machine's data folder: the agent (or `trueup up`) that runs in it, then all tasks.

    The folder is --data, else ./.trueup, else the one agents have by default. Specs are not touched: the next
    `trueup up` starts again what they want.
    """
    common = settings()
    configure_logging(level="warning", log_format=common.log_format)
    data, folder = _agent_folder(common.data)
    _end_agent(folder)
    ended = _end_tasks(folder, timeout)
    click.echo(f"{ended} tasks ended in {folder}" if ended else f"nothing ran in {folder}")
    if purge:
        shutil.rmtree(data)
        click.echo(f"{data} deleted")


def _agent_folder(data: Path | None) -> tuple[Path, Path]:
    """The data folder, and where its agent keeps its list: in `agent` below it for `trueup up`, else in itself.

    The first is what `--purge` deletes, so it is never a folder above the one that was named: a server's own may lie
    beside an agent's.
    """
    of_up, of_agent = (data, data) if data is not None else (UP_DATA, default_data("agent"))
    candidates = [(of_up, of_up / "agent"), (of_agent, of_agent)]
    for whole, folder in candidates:
        if (folder / "agent.db").is_file():
            return whole.absolute(), folder.absolute()
    looked = " or ".join(str(folder) for _, folder in candidates)
    raise Failed(f"no agent ever ran in {looked}; name its folder by --data")


def _end_agent(folder: Path) -> None:
    from agent.journal import holder_of

    process = holder_of(folder)
    if process is None:
        return
    say(f"ending the agent of {folder} (process {process})")
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGTERM)
    deadline = time.monotonic() + _AGENT_SECONDS
    while holder_of(folder) is not None:
        if time.monotonic() > deadline:
            raise TimedOut(f"process {process} did not end within {_AGENT_SECONDS:g} s; nothing was stopped")
        time.sleep(_LOOK_SECONDS)


def _end_tasks(folder: Path, timeout: Duration) -> int:
    """Stops what runs; returns how many tasks that were. TimedOut names those that go on."""
    from agent.journal import FolderInUse, JournalUnusable
    from agent.node_agent import AgentSettings
    from cli.node_wiring import build_node_agent
    from cli.policy import node_policies

    policies = node_policies({}, enable_process=True, allow_root=True)
    try:
        node = build_node_agent(AgentSettings(data=folder, servers=(), name="down", bind=None), policies)
    except (FolderInUse, JournalUnusable) as error:
        raise Failed(str(error)) from error
    try:
        node.runner.step()
        running = len(node.runner.running_tasks)
        left = node.stop_all(timeout.total_seconds())
    finally:
        node.close()
    if left:
        raise TimedOut(f"did not end within {timeout.total_seconds():g} s: {', '.join(left)}")
    return running
