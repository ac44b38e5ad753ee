"""Commands that people try: what they answer instead, and what to type while the git host is down."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from cli.emergency import emergency_words
from cli.views import PlaceView, RemoteView, SourceView
from tests.require import require
from tests.unit.cli.canned import COMMIT, NOON, a_cluster, a_job, a_status
from tests.unit.cli.conftest import FakeControlPlane

Run = Callable[..., Result]

HOST = "https://git.example.org/ops.git"
KEPT = "/var/lib/trueup/server/emergency.git"


def a_remote(url: str, state: str, **fields: Any) -> dict[str, Any]:
    return {"url": url, "state": state, "commit": COMMIT, "last_success_at": NOON, "error": "", **fields}


def a_source(*states: str, paths: tuple[str, ...] = ("specs", "more"), kept: str = KEPT) -> dict[str, Any]:
    hosts = [
        a_remote(HOST, state, error=f"{HOST}: no route" if state == "unreachable" else "") for state in states
    ]
    return {
        "kind": "git",
        "url": HOST,
        "last_success_at": NOON,
        "error": "",
        "paths": list(paths),
        "remotes": [*hosts, a_remote(kept, "current", emergency=True)],
    }


@pytest.fixture
def dead_host(control_plane: FakeControlPlane) -> FakeControlPlane:
    control_plane.answers = a_cluster() | {
        "/status": a_status(sync="Unknown", source=a_source("unreachable")),
        "/jobs/web": a_job(place={"file": "jobs/my web.yaml", "line": 3, "root": 1}),
    }
    return control_plane


@pytest.mark.parametrize(
    ("arguments", "words", "subject"),
    [
        (("stop", "web"), "suspended: true", "Stop web"),
        (("scale", "web", "5"), "count: 5", "Scale web to 5"),
        (("restart", "web"), "restart_token", "Restart web"),
    ],
)
def test_while_the_host_is_down_the_commands_are_printed(
    run: Run, dead_host: FakeControlPlane, arguments: tuple[str, ...], words: str, subject: str
) -> None:
    result = run(*arguments)
    assert result.exit_code == 1
    assert words in result.stderr
    for command in (
        f"git clone {KEPT} emergency && cd emergency",
        "\"${EDITOR:-vi}\" 'more/jobs/my web.yaml'",
        f"git commit -a -m '{subject}' && git push",
        f"git push {HOST} HEAD",
    ):
        assert command in result.stderr
    assert "no route" in result.stderr
    assert dead_host.requests


@pytest.mark.parametrize("states", [("followed",), ("unreachable", "followed"), ("diverged",)])
def test_while_one_host_can_be_read_they_are_not(
    run: Run, dead_host: FakeControlPlane, states: tuple[str, ...]
) -> None:
    dead_host.answers["/status"] = a_status(source=a_source(*states))
    result = run("scale", "web", "5")
    assert "count: 5" in result.stderr
    assert "emergency" not in result.stderr


def test_a_folder_of_specs_has_none(run: Run, dead_host: FakeControlPlane) -> None:
    dead_host.answers["/status"] = a_status()
    assert "emergency" not in run("stop", "web").stderr


def test_from_another_machine_it_is_cloned_over_ssh() -> None:
    source = SourceView(
        kind="git",
        remotes=(
            RemoteView(url=HOST, state="unreachable", error="gone"),
            RemoteView(url=KEPT, state="current", commit=COMMIT, emergency=True),
        ),
        paths=("",),
    )
    place = PlaceView(file="web.yaml", line=1)
    assert f"ssh://plane.example.org{KEPT}" in emergency_words(
        source, place, "Stop web", "https://plane.example.org:7430"
    )
    assert f"ssh://[2001:db8::1]{KEPT}" in emergency_words(
        source, place, "Stop web", "https://[2001:db8::1]:7430"
    )
    assert f"clone {KEPT}" in emergency_words(source, place, "Stop web", "http://localhost:7430")


def test_the_printed_commands_work_as_they_are(run: Run, dead_host: FakeControlPlane, tmp_path: Path) -> None:
    """A shell runs the very lines, with an editor that appends."""
    require("git")
    script = """
        set -e
        git init --quiet --bare --initial-branch=main kept
        git clone --quiet kept first 2>/dev/null
        cd first && mkdir -p more/jobs && echo 'name: web' > 'more/jobs/my web.yaml'
        git add -A && git commit --quiet -m one && git push --quiet origin HEAD:main
    """
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "EDITOR": str(tmp_path / "editor"),
        **{f"GIT_{who}_{what}": "eve@x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\necho 'suspended: true' >> \"$1\"\n")
    editor.chmod(0o755)
    subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, check=True)
    dead_host.answers["/status"] = a_status(source=a_source("unreachable", kept=str(tmp_path / "kept")))
    printed = run("stop", "web").stderr
    commands = printed[printed.index("    git clone") : printed.index("When the host is back")]
    subprocess.run(["bash", "-ec", commands], cwd=tmp_path, env=environment, check=True)
    shown = subprocess.run(
        ["git", "-C", "kept", "show", "main:more/jobs/my web.yaml"],
        cwd=tmp_path, env=environment, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert shown.stdout == "name: web\nsuspended: true\n"


def test_status_names_remotes_where_there_is_something_to_tell(
    run: Run, control_plane: FakeControlPlane
) -> None:
    control_plane.answers = a_cluster()
    for states, shown in (
        (("followed",), False),
        (("unreachable", "followed"), True),
        (("unreachable",), True),
        (("followed", "current"), True),
    ):
        control_plane.answers["/status"] = a_status(source=a_source(*states))
        assert ("REMOTE" in run("status").stdout) is shown
        assert KEPT in run("status", "-o", "wide").stdout
    control_plane.answers["/status"] = a_status(source=a_source("unreachable"))
    printed = " ".join(run("status").stdout.split())
    assert f"{HOST} unreachable {COMMIT[:8]}" in printed
    assert "no route" in printed
