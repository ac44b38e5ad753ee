"""Global options: where their values come from, and which wins."""

from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import cli.main
from cli.main import Entry
from cli.options import Command
from cli.settings import Settings, settings

Read = Callable[..., Settings]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Read:
    """Runs a command `probe` with an option of its own and returns the settings it got."""
    seen: dict[str, object] = {}

    @click.command(cls=Command)
    @click.option("--poll", default="15s")
    @click.option("--git", multiple=True)
    def probe(poll: str, git: tuple[str, ...]) -> None:
        seen.update(settings=settings(), poll=poll, git=git)

    monkeypatch.setitem(cli.main.SECTIONS, "Test", {"probe": Entry(module="probe", help="Probe.")})
    original = cli.main._load
    monkeypatch.setattr("cli.main._load", lambda entry: probe if entry.module == "probe" else original(entry))

    def call(*arguments: str, env: dict[str, str | None] | None = None) -> Settings:
        result: Result = CliRunner(env=env or {}).invoke(cli.main.cli, list(arguments))
        assert result.exit_code == 0, result.output
        call.poll, call.git = seen["poll"], seen["git"]  # type: ignore[attr-defined] # what the command itself got
        found = seen["settings"]
        assert isinstance(found, Settings)
        return found

    return call


def test_without_anything_the_defaults_hold(read: Read) -> None:
    """The control plane of this machine, and text."""
    found = read("probe")
    assert (found.address, found.log_level, found.log_format, found.color) == (
        "http://127.0.0.1:7430",
        "info",
        "text",
        "auto",
    )
    assert (found.data, found.config, found.flags) == (None, None, frozenset())


@pytest.mark.parametrize(
    "arguments",
    [
        ["--address", "http://a:1", "probe"],
        ["probe", "--address", "http://a:1"],
        ["--address", "http://b:2", "probe", "--address", "http://a:1"],
    ],
)
def test_a_global_option_works_before_and_after_the_command(read: Read, arguments: list[str]) -> None:
    """The later one wins."""
    found = read(*arguments)
    assert found.address == "http://a:1"
    assert found.flags == {"address"}


def test_flag_beats_environment_beats_file(read: Read, tmp_path: Path) -> None:
    """The contract's order: flag, environment, file, default."""
    file = tmp_path / "options.yaml"
    file.write_text("address: http://file:1\nlog-level: error\ncolor: never\n")
    environment: dict[str, str | None] = {"TRUEUP_ADDRESS": "http://env:1", "TRUEUP_LOG_LEVEL": "warning"}
    found = read("--config", str(file), "probe", "--log-level", "debug", env=environment)
    assert (found.address, found.log_level, found.color) == ("http://env:1", "debug", "never")


def test_a_flag_before_the_command_beats_the_environment(read: Read) -> None:
    """The command sees the variable too, and must not take it for something newer."""
    found = read("--address", "http://flag:1", "probe", env={"TRUEUP_ADDRESS": "http://env:1"})
    assert found.address == "http://flag:1"


@pytest.mark.parametrize("where", ["before", "after", "environment"])
def test_a_file_gives_the_commands_own_options(read: Read, tmp_path: Path, where: str) -> None:
    """A section under the command's name, which wins over the file's global options."""
    file = tmp_path / "options.yaml"
    file.write_text(
        "bind: 0.0.0.0:1\nprobe:\n  poll: 30s\n  git: [a, b]\n  bind: 127.0.0.1:0\ndrivers: {process: {}}\n"
    )
    if where == "before":
        found = read("--config", str(file), "probe")
    elif where == "after":
        found = read("probe", "--config", str(file))
    else:
        found = read("probe", env={"TRUEUP_CONFIG": str(file)})
    assert found.bind == "127.0.0.1:0"
    assert (read.poll, read.git) == ("30s", ("a", "b"))  # type: ignore[attr-defined]
    assert found.document["drivers"] == {"process": {}}


def test_a_commands_own_option_comes_from_the_environment_too(read: Read) -> None:
    """Named after command and option."""
    read("probe", env={"TRUEUP_PROBE_POLL": "1m"})
    assert read.poll == "1m"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("adress: x\n", 'options.yaml: adress: unknown key; did you mean "address"?'),
        ("nodes:\n  stats: x\n", 'options.yaml: nodes.stats: unknown key; did you mean "status"?'),
        ("nodes: x\n", "options.yaml: nodes: write the options of `trueup nodes` as a mapping under it"),
        ("a: [\n", "options.yaml:2:1: "),
        ("- a\n", "options.yaml: write a mapping of options"),
        ("address: [a]\n", "address in the options file: write one value"),
        ("log-level: loud\n", "log-level in the options file: 'loud' is not one of"),
    ],
)
def test_a_wrong_options_file_is_one_line(tmp_path: Path, content: str, message: str) -> None:
    """File, place, what is wrong; never a traceback."""
    file = tmp_path / "options.yaml"
    file.write_text(content)
    result = CliRunner().invoke(cli.main.cli, ["nodes", "--config", str(file)])
    assert result.exit_code == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_options_file_that_is_not_there(tmp_path: Path) -> None:
    """The option and the system's reason."""
    result = CliRunner().invoke(cli.main.cli, ["--config", str(tmp_path / "none.yaml"), "nodes"])
    assert result.exit_code == 1
    assert result.stderr.endswith("none.yaml cannot be read: No such file or directory\n")
