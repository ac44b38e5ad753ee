"""`init`, `schema`, `version`, `completion`: what needs no control plane."""

import json
import re
import socket
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from click.testing import Result

from cli.commands.agent import limits_of
from tests.unit.cli.conftest import FakeControlPlane

Run = Callable[..., Result]
EXAMPLES = Path(__file__).parents[3] / "specs"


def test_init_writes_what_a_clone_has(run_alone: Run, tmp_path: Path) -> None:
    """The same files, valid; the next step is on stderr."""
    result = run_alone("init", str(tmp_path / "specs"))
    assert result.exit_code == 0, result.output
    written = {
        path.relative_to(tmp_path / "specs") for path in (tmp_path / "specs").rglob("*") if path.is_file()
    }
    assert written == {path.relative_to(EXAMPLES) for path in EXAMPLES.rglob("*") if path.is_file()}
    assert len(result.stdout.splitlines()) == len(written)
    assert f"Now run them: trueup up {tmp_path}/specs" in result.stderr
    assert run_alone("validate", str(tmp_path / "specs")).exit_code == 0


def test_init_overwrites_nothing(run_alone: Run, tmp_path: Path) -> None:
    """One file that is there stops all of it."""
    target = tmp_path / "specs"
    target.mkdir()
    (target / "hello.yaml").write_text("mine\n")
    result = run_alone("init", str(target))
    assert result.exit_code == 1
    assert "hello.yaml is there already; name another folder" in result.stderr
    assert [path.name for path in target.iterdir()] == ["hello.yaml"]
    assert (target / "hello.yaml").read_text() == "mine\n"


def _documents(folder: Path) -> list[Any]:
    return [
        one for path in sorted(folder.rglob("*.yaml")) for one in yaml.safe_load_all(path.read_text()) if one
    ]


def test_one_schema_for_every_kind(run_alone: Run) -> None:
    """For editors: it takes the examples, and finds in each kind what that kind's own schema finds."""
    text = run_alone("schema", "all").stdout
    validator = jsonschema_rs.Draft202012Validator(json.loads(text))
    examples = _documents(EXAMPLES)
    assert {one["kind"] for one in examples} >= {"Job", "Template"}
    assert [one["name"] for one in examples if not validator.is_valid(one)] == []
    for wrong in (
        {"kind": "Job", "name": "web", "groups": [{"cuont": 3}]},
        {"kind": "Node", "name": "n", "drain": {"deadlnie": "1h"}},
        {"kind": "Cluster", "name": "c", "placement": "spraed"},
        {"kind": "Template"},
        {"kind": "Jbo", "name": "web"},
        {"name": "web"},
    ):
        assert not validator.is_valid(wrong), wrong
    references = set(re.findall(r'"\$ref": "#/([^"]*)"', text))
    document = json.loads(text)
    for reference in references:
        found = document
        for step in reference.split("/"):
            found = found[step]


@pytest.mark.parametrize("kind", ["job", "template", "node", "cluster", "JOB"])
def test_schemas_are_the_ones_validation_uses(run_alone: Run, kind: str) -> None:
    """JSON Schema on stdout."""
    assert json.loads(run_alone("schema", kind).stdout)["type"] == "object"


def test_version_without_a_control_plane(run_alone: Run) -> None:
    """No error, no waiting: its own version."""
    with closing(socket.create_server(("127.0.0.1", 0))) as held:
        port = held.getsockname()[1]
    result = run_alone("version", "--address", f"http://127.0.0.1:{port}")
    assert result.exit_code == 0
    assert result.stdout.startswith("trueup ")
    assert len(result.stdout.splitlines()) == 1


def test_version_of_something_else_that_listens(run: Run, control_plane: FakeControlPlane) -> None:
    """A stranger's answer is no version and no error."""
    control_plane.answers["/status"] = [1, 2]
    result = run("version")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 1


def test_completion_is_a_script_that_the_shell_reads(run_alone: Run, tmp_path: Path) -> None:
    """bash parses it, and it completes commands."""
    script = tmp_path / "completion.bash"
    script.write_text(run_alone("completion", "bash").stdout)
    subprocess.run(["bash", "-n", str(script)], check=True)
    completed = run_alone(
        env={"_TRUEUP_COMPLETE": "bash_complete", "COMP_WORDS": "trueup ver", "COMP_CWORD": "1"}
    )
    assert "version" in completed.stdout
    assert run_alone("completion", "tcsh").exit_code == 64


def test_an_agent_that_is_ready_says_what_it_refuses_and_how_to_allow_it() -> None:
    assert "--enable-process" in limits_of(refuses_processes=True, refuses_root=False)
    assert "users: [root]" in limits_of(refuses_processes=False, refuses_root=True)
    assert limits_of(refuses_processes=False, refuses_root=False) == ""
