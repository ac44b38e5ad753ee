"""What `server`, `agent` and `up` are told, and what is refused at once."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

import cli.main
from cli.agent_settings import (
    AgentSettings,
    UpSettings,
    agent_options,
    node_name_of_host,
    up_options,
)
from cli.main import Entry
from cli.options import Command
from cli.server_settings import ServerSettings, default_data, server_options

Start = Callable[..., Result]


@pytest.fixture
def got() -> dict[str, Any]:
    """What the commands were given."""
    return {}


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, got: dict[str, Any]) -> Start:
    """Calls `server`, `agent` or `up` with options; they only note what they were given."""

    @click.command(cls=Command)
    @server_options
    def server_command(server: ServerSettings) -> None:
        got["server"] = server

    @click.command(cls=Command)
    @agent_options
    def agent_command(agent: AgentSettings) -> None:
        got["agent"] = agent

    @click.command(cls=Command)
    @up_options
    def up_command(up: UpSettings) -> None:
        got["up"] = up

    commands = {"server": server_command, "agent": agent_command, "up": up_command}
    monkeypatch.setitem(
        cli.main.SECTIONS, "Test", {name: Entry(module=f"test_{name}", help=name) for name in commands}
    )
    original = cli.main._load
    monkeypatch.setattr(
        "cli.main._load",
        lambda entry: commands.get(entry.module.removeprefix("test_")) or original(entry),
    )

    def call(*arguments: str, env: dict[str, str | None] | None = None) -> Result:
        return CliRunner(env=env or {}).invoke(cli.main.cli, list(arguments))

    return call


def test_a_server_with_nothing_but_a_folder(start: Start, got: dict[str, Any], tmp_path: Path) -> None:
    """The contract's defaults."""
    assert start("server", "--specs", "specs", "--data", str(tmp_path)).exit_code == 0
    server: ServerSettings = got["server"]
    assert server.specs == (Path("specs"),)
    assert server.git is None
    assert server.bind == ("127.0.0.1", 7430)
    assert server.store == f"sqlite:///{tmp_path}/trueup.db"
    assert server.token_file == tmp_path / "cluster-token"
    assert (server.node_timeout, server.removal_settle) == (timedelta(seconds=10), timedelta(seconds=2))
    assert (server.insecure, server.public_read) == (False, False)


def test_a_server_that_follows_a_repository(start: Start, got: dict[str, Any]) -> None:
    """Several remotes, several folders of the tree, and how to reach them."""
    result = start(
        "server", "--git", "https://a/x", "--git", "ssh://b/x", "--path", "eu", "--path", "us",
        "--poll", "1m", "--git-token-file", "t", "--git-allowed-signers", "s", "--allowed-host", "ops.example.org",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    git = got["server"].git
    assert git.urls == ("https://a/x", "ssh://b/x")
    assert (git.ref, git.paths, git.poll) == ("main", ("eu", "us"), timedelta(minutes=1))
    assert (git.token_file, git.allowed_signers) == (Path("t"), Path("s"))
    assert got["server"].allowed_hosts == ("ops.example.org",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["server"], "say where the specs are: --specs DIR, or --git URL"),
        (["server", "--specs", "a", "--git", "b"], "--specs and --git exclude each other"),
        (["server", "--specs", "a", "--path", "b"], "--path goes with --git"),
        (["server", "--specs", "a", "--bind", "7430"], "write HOST:PORT"),
        (["server", "--specs", "a", "--bind", "0.0.0.0:0"], "--insecure goes without"),
        (["server", "--specs", "a", "--tls-cert", "c"], "--tls-cert and --tls-key go together"),
        (["server", "--specs", "a", "--node-timeout", "soon"], "soon"),
        (["agent", "--bind", "0.0.0.0:0"], "--insecure goes without"),
        (["agent", "--name", "Bad_Name"], "--name 'Bad_Name' is no name"),
        (["agent", "--label", "disk"], "'disk' is no label; write key=value"),
        (["agent", "--memory", "lots"], "lots"),
        (["agent", "--cpu", "many"], "many"),
        (["agent", "--reserve-disk", "lots"], "lots"),
        (["agent", "--gc-max-allocs", "-1"], "-1"),
        (["agent", "--memory", "2GiB", "--reserve-memory", "1GiB"], "--reserve-memory what they do not get"),
        (["up", "--cpu", "2", "--reserve-cpu", "1"], "--reserve-cpu what they do not get"),
        (["up", "--agent-bind", "0.0.0.0:0"], "--agent-bind 0.0.0.0 can be reached"),
    ],
)
def test_what_cannot_be_is_a_usage_error(start: Start, arguments: list[str], message: str) -> None:
    """64, before anything is opened, and no traceback."""
    result = start(*arguments)
    assert result.exit_code == 64
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_an_agent_and_its_policy(start: Start, got: dict[str, Any], tmp_path: Path) -> None:
    """Options from flags and the file; what tasks may do from the file alone."""
    file = tmp_path / "agent.yaml"
    file.write_text(
        "agent: {region: eu, label: [disk=ssd], server: [https://a:1/, https://b:1]}\n"
        "drivers: {process: {enabled: true}}\nvolumes: {v: {path: /srv/v}}\n"
    )
    result = start(
        "agent",
        "--config",
        str(file),
        "--name",
        "n1",
        "--cpu",
        "1.5",
        "--memory",
        "2GiB",
        "--bind",
        "[::1]:0",
    )
    assert result.exit_code == 0, result.output
    agent: AgentSettings = got["agent"]
    assert (agent.name, agent.region, dict(agent.labels)) == ("n1", "eu", {"disk": "ssd"})
    assert agent.servers == ("https://a:1", "https://b:1")
    assert (agent.cpu_millicores, agent.memory_bytes) == (1500, 2 * 1024**3)
    assert agent.bind == ("::1", 0)
    assert set(agent.policy) == {"drivers", "volumes"}
    assert not agent.enable_process


def test_what_a_node_keeps_back(start: Start, got: dict[str, Any], tmp_path: Path) -> None:
    """From flags, the environment and the file, like every option; unless it is said, what the machine decides."""
    file = tmp_path / "agent.yaml"
    file.write_text("agent: {reserve-memory: 1GiB, reserve-disk: 5GiB, gc-max-allocs: 7}\n")
    environment: dict[str, str | None] = {
        "TRUEUP_AGENT_RESERVE_CPU": "0.5",
        "TRUEUP_AGENT_GC_MAX_SIZE": "2GiB",
    }
    result = start("agent", "--config", str(file), "--reserve-disk", "6GiB", env=environment)
    assert result.exit_code == 0, result.output
    agent: AgentSettings = got["agent"]
    assert (agent.reserve_cpu_millicores, agent.reserve_memory_bytes) == (500, 1024**3)
    assert (agent.reserve_disk_bytes, agent.gc_max_allocs, agent.gc_max_bytes) == (
        6 * 1024**3,
        7,
        2 * 1024**3,
    )
    assert start("up", "--data", str(tmp_path)).exit_code == 0
    up: AgentSettings = got["up"].agent
    assert (up.reserve_cpu_millicores, up.reserve_memory_bytes, up.reserve_disk_bytes) == (None, None, None)
    assert (up.gc_max_allocs, up.gc_max_bytes) == (500, None)


def test_an_agent_without_a_server_asks_the_address(start: Start, got: dict[str, Any]) -> None:
    """`--address` is the control plane of all commands."""
    assert start("agent", env={"TRUEUP_ADDRESS": "http://c:1"}).exit_code == 0
    assert got["agent"].servers == ("http://c:1",)
    assert got["agent"].token_file is None


def test_a_relative_data_folder_is_the_one_below_where_the_agent_was_started(
    start: Start, got: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whoever works elsewhere, as the shims of tasks do, must mean the same folder."""
    monkeypatch.chdir(tmp_path)
    assert start("agent", "--data", "node").exit_code == 0
    assert got["agent"].data == tmp_path / "node"


def test_up_is_both_below_one_folder(
    start: Start, got: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The folder `specs` is watched, everything is kept in `./.trueup`, and programs may run."""
    monkeypatch.chdir(tmp_path)
    assert start("up").exit_code == 0
    up: UpSettings = got["up"]
    assert up.server.specs == (Path("specs"),)
    assert up.server.data == tmp_path / ".trueup" / "server"
    assert up.agent.data == tmp_path / ".trueup" / "agent"
    assert up.agent.enable_process
    assert up.agent.token_file == up.server.token_file == tmp_path / ".trueup" / "server" / "cluster-token"
    assert not up.stop_tasks


def test_up_takes_folders_by_position_and_the_servers_options(start: Start, got: dict[str, Any]) -> None:
    """Positional SPECS and `--specs` add up; `--git` goes as well."""
    assert start("up", "a", "b", "--specs", "c", "--poll", "1s", "--stop-tasks").exit_code == 0
    assert got["up"].server.specs == (Path("a"), Path("b"), Path("c"))
    assert got["up"].stop_tasks
    assert start("up", "--git", "repo").exit_code == 0
    assert got["up"].server.git.urls == ("repo",)


@pytest.mark.parametrize(
    ("hostname", "name"),
    [("Web_01.example.org", "web-01-example-org"), ("x" * 80, "x" * 63), ("-a-", "a"), ("ü", "node")],
)
def test_a_hostname_as_a_nodes_name(hostname: str, name: str) -> None:
    """Lower-cased, other characters as `-`."""
    assert node_name_of_host(hostname) == name


def test_where_data_lies_without_a_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    """As root below /var/lib, else where the desktop's rules say."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert default_data("server") == Path("/var/lib/trueup/server")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert default_data("agent", {"XDG_STATE_HOME": "/x"}) == Path("/x/trueup/agent")
