"""`trueup validate`: every error at once, each with its place and what to do."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Run = Callable[..., Result]
GOOD = 'kind: Job\nname: web\ngroups: [{name: app, tasks: [{config: {command: [sleep, "1"]}}]}]\n'


@pytest.fixture
def specs(tmp_path: Path) -> Path:
    """An empty folder."""
    folder = tmp_path / "specs"
    folder.mkdir()
    return folder


def test_a_valid_tree(run_alone: Run, specs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that counts what is there; `specs` is the default."""
    monkeypatch.chdir(specs.parent)
    (specs / "web.yaml").write_text(GOOD)
    result = run_alone("validate")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "specs is valid: 1 job\n", "")


def test_every_error_of_every_file(run_alone: Run, specs: Path) -> None:
    """On stderr, one a line: file, line, column, path, what is wrong, what to write."""
    (specs / "a.yaml").write_text(GOOD.replace("[{name: app,", "[{name: app, count: -1, cout: 2,"))
    (specs / "b.yaml").write_text("kind: Job\nname: [\n")
    (specs / "c.yaml").write_text(GOOD.replace("name: web", "name: other"))
    result = run_alone("validate", str(specs))
    assert result.exit_code == 1
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert 'a.yaml:3:33: groups[0].cout: unknown key; did you mean "count"?' in lines
    assert any(line.startswith("a.yaml:3:") and "less than the minimum" in line for line in lines)
    assert any(line.startswith("b.yaml:") for line in lines)
    assert lines[-1] == f"Error: {specs}: 3 errors in 2 files"


def test_as_json(run_alone: Run, specs: Path) -> None:
    """The same for programs: the errors as the API has them, and what is valid."""
    (specs / "a.yaml").write_text(GOOD.replace("web", "good") + "---\n" + GOOD.replace("groups", "gropus"))
    result = run_alone("validate", str(specs), "-o", "json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["valid"] is False
    assert document["jobs"] == ["good"]
    assert {error["file"] for error in document["errors"]} == {"a.yaml"}
    assert set(document["errors"][0]) == {"file", "line", "column", "path", "message", "hint"}


def test_stdin_and_single_files(run_alone: Run, specs: Path) -> None:
    """`-` and a file's name; what lies beside a file may be its `source`."""
    assert run_alone("validate", "-", input=GOOD).stdout == "stdin is valid: 1 job\n"
    bad = run_alone("validate", "-", input=GOOD.replace("kind: Job", "kind: Jub"))
    assert bad.exit_code == 1
    assert bad.stderr.startswith("stdin:1:7: kind: ")
    (specs / "app.conf").write_text("x\n")
    file = specs / "web.yaml"
    file.write_text(
        "kind: Job\nname: web\ngroups:\n  - tasks:\n    - config: {command: [sleep, '1']}\n"
        "      files: [{path: local/app.conf, source: ./app.conf}]\n"
    )
    (specs / "broken.yaml").write_text("a: [")
    result = run_alone("validate", str(file))
    assert result.exit_code == 0, result.stderr
    mixed = run_alone("validate", str(file), str(specs))
    assert mixed.exit_code == 64


def test_several_folders_are_one_tree(run_alone: Run, tmp_path: Path) -> None:
    """One name in two of them is an error of both."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "web.yaml").write_text(GOOD)
    result = run_alone("validate", str(tmp_path / "a"), str(tmp_path / "b"))
    assert result.exit_code == 1
    assert result.stderr.count("Job 'web' is in web.yaml:2 too") == 2


def test_an_absent_folder_is_no_empty_tree(run_alone: Run, tmp_path: Path) -> None:
    """An error, in one line, at once."""
    result = run_alone("validate", str(tmp_path / "none"))
    assert result.exit_code == 1
    assert result.stderr == f"Error: {tmp_path}/none does not exist\n"


def test_a_link_that_leaves_the_tree(run_alone: Run, specs: Path) -> None:
    """An error of that file."""
    (specs / "out.yaml").symlink_to("/etc/hostname")
    result = run_alone("validate", str(specs))
    assert result.exit_code == 1
    assert "out.yaml: is a link that leaves the spec tree" in result.stderr


def test_no_value_of_env_and_no_control_character_is_echoed(run_alone: Run, specs: Path) -> None:
    """Specs are text of others, and env may hold what is not to be seen."""
    (specs / "a\x1b[2J.yaml").write_text(GOOD.replace("config:", "env: {A: {secrt: hunter2}}, config:"))
    result = run_alone("validate", str(specs))
    assert result.exit_code == 1
    assert "hunter2" not in result.output
    assert "\x1b" not in result.output
