"""The parser: exit codes, names of commands, what a user's mistake looks like."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import cli.main
from cli.main import HIDDEN, SECTIONS, find_decoy

Run = Callable[..., Result]
ROOT = Path(cli.main.__file__).resolve().parent.parent


def test_an_unknown_command_is_a_usage_error_with_a_suggestion(run_alone: Run) -> None:
    """64, not click's 2, which means changes; the command that comes close is named."""
    result = run_alone("nods")
    assert result.exit_code == 64
    assert "Did you mean 'nodes'?" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["nodes", "--colour"],
        ["nodes", "-o", "xml"],
        ["schema"],
        ["status", "a", "b"],
        ["logs", "x", "--since", "soon"],
    ],
)
def test_usage_errors_exit_64(run_alone: Run, arguments: list[str]) -> None:
    """Every kind of wrong usage has one code and no traceback."""
    result = run_alone(*arguments)
    assert result.exit_code == 64
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_help_lists_every_command_that_is_not_hidden(run_alone: Run) -> None:
    """The help is made from the register, without importing a command."""
    result = run_alone("--help")
    assert result.exit_code == 0
    for entries in SECTIONS.values():
        for name, entry in entries.items():
            assert f"  {name}" in result.stdout
            assert entry.help[:20] in result.stdout
    assert "  promote" not in result.stdout


@pytest.mark.parametrize("name", [name for entries in (*SECTIONS.values(), HIDDEN) for name in entries])
def test_every_command_in_the_register_can_be_loaded(name: str) -> None:
    """A row of the register names a module that is there, and its help is a sentence."""
    found = cli.main.cli.get_command(click.Context(cli.main.cli), name)
    assert found is not None
    assert found.help


def test_an_interrupt_exits_130(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C is no failure and no traceback."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cli.commands.schema.command.callback", lambda kind: interrupt())
    result = CliRunner().invoke(cli.main.cli, ["schema", "job"])
    assert result.exit_code == 130
    assert "Traceback" not in result.output


def test_what_nobody_expected_is_one_line_and_a_traceback_only_at_debug(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A fault of ours names itself and says how to see where."""

    def fail(kind: str) -> None:
        raise ZeroDivisionError(f"no {kind}")

    monkeypatch.setattr("cli.commands.schema.command.callback", fail)
    result = CliRunner().invoke(cli.main.cli, ["schema", "job"])
    assert result.exit_code == 1
    assert result.stderr == "Error: unexpected ZeroDivisionError: no job (--log-level debug shows where)\n"
    result = CliRunner().invoke(cli.main.cli, ["schema", "job", "--log-level", "debug"])
    assert "Traceback" in result.stderr


def test_status_starts_without_the_heavy_libraries() -> None:
    """A read-only command imports neither store, validation nor planner."""
    script = (
        "import sys\n"
        "import cli.main, cli.commands.status, cli.commands.explain, cli.commands.logs, cli.commands.wait\n"
        "heavy = {'sqlalchemy', 'alembic', 'jsonschema', 'numpy', 'yaml', 'rich', 'structlog', 'flask', 'docker'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout == "[]\n"


def test_a_decoy_room_in_pythonpath_is_refused(tmp_path: Path) -> None:
    """With a stranger's `reconciler` in front, nothing runs and one line says whose it is."""
    (tmp_path / "reconciler").mkdir()
    (tmp_path / "reconciler" / "__init__.py").write_text("")
    done = subprocess.run(
        [sys.executable, "-P", "-c", "from cli.main import main; main()", "schema", "job"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(
        f"Error: the package reconciler is taken from {tmp_path}/reconciler/__init__.py"
    )
    assert len(done.stderr.splitlines()) == 1


def test_our_own_rooms_are_no_decoys() -> None:
    """In a clone and in an installation all rooms lie beside each other."""
    assert find_decoy(ROOT) is None
