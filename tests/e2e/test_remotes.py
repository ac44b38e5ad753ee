"""When the git host is down: other remotes, and the server's own repository, with real git and real processes."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import TRUEUP, environment, is_alive
from tests.e2e.git_cluster import NODES, GitCluster, Pushed
from tests.require import require

pytestmark = pytest.mark.e2e

SOON = ("--poll", "300ms")
CLUSTER = "kind: Cluster\nname: cluster\nplacement: spread\n"


def job(name: str, colour: str = "blue", *, count: int = 1, more: str = "") -> str:
    return f"""
kind: Job
name: {name}
update: {{max_parallel: 1, min_healthy_time: 200ms}}
groups:
  - count: {count}
    tasks:
      - config: {{command: [sleep, "3600"]}}
        env: {{COLOUR: {colour}}}
        kill_timeout: 2s
{more}""".lstrip()


@pytest.fixture
def pushed(tmp_path: Path) -> Pushed:
    require("git")
    (tmp_path / "host").mkdir()
    return Pushed(tmp_path / "host")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[GitCluster]:
    """Not started yet; all of it ends with the test."""
    made = GitCluster(tmp_path)
    yield made
    made.end()


class Shell:
    """A person at the server's machine, with an editor that does one edit."""

    def __init__(self, folder: Path, edit: str) -> None:
        self.folder = folder
        folder.mkdir()
        editor = folder / "editor"
        editor.write_text(f"#!/bin/sh\n{edit}\n")
        editor.chmod(0o755)
        self._environment = {
            **environment(),
            "EDITOR": str(editor),
            "GIT_CONFIG_GLOBAL": "/dev/null",
            **{f"GIT_{who}_NAME": "Eve" for who in ("AUTHOR", "COMMITTER")},
            **{f"GIT_{who}_EMAIL": "eve@example.org" for who in ("AUTHOR", "COMMITTER")},
        }

    def run(self, script: str) -> str:
        done = subprocess.run(
            ["bash", "-ec", script],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def commands_of(said: str) -> str:
    """The indented commands that begin with the clone."""
    return said[said.index("    git clone") : said.index("When the host is back")]


def remotes(cluster: GitCluster) -> list[tuple[str, str]]:
    return [(Path(one["url"]).name, one["state"]) for one in cluster.api.status()["source"]["remotes"]]


def answered(cluster: GitCluster, *arguments: str) -> str:
    """What one of the commands says that change nothing, with words of a terminal's width joined."""
    done = subprocess.run(
        [str(TRUEUP), *arguments, "--address", cluster.server.url],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
        timeout=60,
    )
    assert done.returncode == 1
    return done.stderr


def held_and_released(cluster: GitCluster, eve: Shell) -> str:
    """A push to the server that would end everything is held until it is reverted; the last commit."""
    before = eve.run("git -C emergency rev-parse HEAD").strip()
    plan = cluster.command("plan", "-o", "json", "specs", cwd=eve.folder / "emergency")
    assert json.loads(plan)["base_revision"] == before
    eve.run(
        "cd emergency && git rm --quiet -r specs/jobs specs/api.yaml && git commit -qm all && git push -q"
    )
    held = cluster.api.until(lambda: cluster.api.status()["held"])
    assert held["revision"] == eve.run("git -C emergency rev-parse HEAD").strip()
    assert cluster.api.status()["revision"] == before
    eve.run("cd emergency && git revert --no-edit HEAD && git push -q")
    last = eve.run("git -C emergency rev-parse HEAD").strip()
    cluster.until_applied(last)
    assert cluster.api.status()["held"] is None
    return last


def test_a_second_remote_is_followed_while_the_first_is_dead_and_two_that_moved_hold(
    cluster: GitCluster, pushed: Pushed
) -> None:
    """Nothing stops in between, and the status says which one is dead, and why."""
    second = pushed.bare.with_name("second.git")
    pushed.work.git("init", "--quiet", "--bare", "--initial-branch=main", str(second))
    pushed.work.git("remote", "add", "second", str(second))
    pushed.commit_and_push({"cluster.yaml": CLUSTER, "web.yaml": job("web")})
    pushed.work.git("push", "--quiet", "second", "HEAD")
    cluster.start(pushed.bare, "--git", str(second), *SOON)
    before = cluster.api.until_running("web", 1)
    cluster.api.until(lambda: ("second.git", "current") in remotes(cluster))

    away = pushed.bare.with_name("away.git")
    pushed.bare.rename(away)
    base = pushed.commit({"api.yaml": job("api")}, "while it is dead", author="Bob")
    pushed.work.git("push", "--quiet", "second", "HEAD")
    cluster.until_applied(base)
    cluster.api.until_running("api", 1)
    cluster.api.until(lambda: ("specs.git", "unreachable") in remotes(cluster))
    shown = cluster.command("status")
    assert re.search(rf"{re.escape(str(pushed.bare))} +unreachable", shown)
    assert re.search(rf"{re.escape(str(second))} +followed +{base[:8]}", shown)
    assert "RemoteUnavailable" in cluster.command("events")
    assert cluster.api.status()["sync"] == "Synced"

    away.rename(pushed.bare)
    cluster.api.until(lambda: ("specs.git", "behind") in remotes(cluster))
    pushed.push()
    cluster.api.until(lambda: ("second.git", "current") in remotes(cluster))

    # Both at once, so that neither is seen without the other: the server is away meanwhile.
    assert cluster.server.terminate() == 0
    pushed.commit_and_push({"one.yaml": job("one")}, "on the first")
    pushed.work.git("branch", "first")
    pushed.work.git("reset", "--quiet", "--hard", base)
    pushed.commit({"two.yaml": job("two")}, "on the second")
    pushed.work.git("push", "--quiet", "second", "HEAD")
    cluster.start_server()
    cluster.api.until(lambda: cluster.api.status()["sync"] == "Unknown")
    status = cluster.api.status()
    assert "diverged" in status["source"]["error"]
    assert "merged and pushed" in status["source"]["error"]
    assert status["revision"] == base
    assert {state for name, state in remotes(cluster) if name != "emergency.git"} == {"diverged"}
    assert cluster.api.running("web") == before

    pushed.work.git("merge", "--quiet", "--no-edit", "first")
    merged = pushed.work.git("rev-parse", "HEAD")
    pushed.work.git("push", "--quiet", "second", "HEAD")
    cluster.until_applied(merged)
    cluster.api.until_running("one", 1)
    cluster.api.until_running("two", 1)
    assert cluster.api.running("web") == before


def test_what_is_pushed_to_the_server_while_the_host_is_dead_runs_and_stays(
    cluster: GitCluster, pushed: Pushed, tmp_path: Path
) -> None:
    """The printed commands are typed as they are; author, hold and plan are those of any other commit."""
    pushed.commit_and_push(
        {
            "specs/cluster.yaml": CLUSTER,
            "specs/jobs/web.yaml": job("web", count=2),
            "specs/api.yaml": job("api"),
            "README.md": "not a spec, but in every clone",
        }
    )
    cluster.start(pushed.bare, "--path", "specs", *SOON)
    web, api = cluster.api.until_running("web", 2), cluster.api.until_running("api", 1)
    emergency = tmp_path / "server" / "emergency.git"
    cluster.api.until(lambda: ("emergency.git", "current") in remotes(cluster))
    assert "emergency" not in answered(cluster, "stop", "web")

    away = pushed.bare.with_name("away.git")
    pushed.bare.rename(away)
    cluster.api.until(lambda: cluster.api.status()["sync"] == "Unknown")
    said = answered(cluster, "stop", "web")
    assert f"git clone {emergency} emergency" in said
    assert "specs/jobs/web.yaml" in said
    eve = Shell(tmp_path / "eve", "echo 'suspended: true' >> \"$1\"")
    eve.run(commands_of(said))
    assert (eve.folder / "emergency" / "README.md").exists()
    mended = eve.run("git -C emergency rev-parse HEAD").strip()
    cluster.until_applied(mended)
    cluster.api.until(lambda: not any(is_alive(pid) for pid, _ in web.values()))
    assert cluster.api.running("api") == api
    assert "by Eve <eve@example.org>" in cluster.command("explain", "web")
    assert [state for name, state in remotes(cluster) if name == "emergency.git"] == ["followed"]
    shown = cluster.command("status")
    assert re.search(r"emergency\.git +followed", shown)
    assert re.search(r"specs\.git +unreachable", shown)

    last = held_and_released(cluster, eve)
    assert cluster.api.running("api") == api

    # The host returns without it, also after a restart of the server: nothing is undone.
    away.rename(pushed.bare)
    cluster.api.until(lambda: ("specs.git", "behind") in remotes(cluster))
    cluster.restart_server()
    cluster.api.until(lambda: ("specs.git", "behind") in remotes(cluster))
    assert cluster.api.status()["revision"] == last
    assert cluster.api.running("api") == api
    assert not cluster.api.running("web")
    eve.run(f"git -C emergency push -q {pushed.bare} HEAD")
    cluster.api.until(lambda: ("specs.git", "followed") in remotes(cluster))
    cluster.api.until(lambda: ("emergency.git", "current") in remotes(cluster))
    assert cluster.api.status()["revision"] == last

    pushed.work.git("pull", "--quiet", "origin", "main")
    back = pushed.commit_and_push({"specs/jobs/web.yaml": job("web", count=2)}, "as it was")
    cluster.until_applied(back)
    cluster.api.until_running("web", 2)
    assert cluster.api.running("api") == api


def test_a_lost_database_and_a_dead_host_end_nothing(cluster: GitCluster, pushed: Pushed) -> None:
    """What runs is taken over as it is once the host is back, and no instance starts twice."""
    pushed.commit_and_push({"cluster.yaml": CLUSTER, "web.yaml": job("web", count=2), "api.yaml": job("api")})
    cluster.start(pushed.bare, *SOON)
    before = {**cluster.api.until_running("web", 2), **cluster.api.until_running("api", 1)}
    cluster.api.until(lambda: ("emergency.git", "current") in remotes(cluster))

    assert cluster.server.terminate() == 0
    away = pushed.bare.with_name("away.git")
    pushed.bare.rename(away)
    for path in (cluster.folder / "server").glob("trueup.db*"):
        path.unlink()
    shutil.rmtree(cluster.folder / "server" / "git")
    cluster.start_server()
    cluster.api.until(lambda: cluster.api.status()["nodes"].get("ready") == len(NODES))
    cluster.api.until(lambda: cluster.api.status()["sync"] == "Unknown")
    cluster.api.until(lambda: len(cluster.api.allocations(wanted=False)) == len(before))
    cluster.restart_server()
    cluster.api.until(lambda: cluster.api.status()["nodes"].get("ready") == len(NODES))
    assert all(is_alive(pid) for pid, _ in before.values())
    assert cluster.api.status()["revision"] is None

    away.rename(pushed.bare)
    cluster.api.until(lambda: cluster.api.status()["sync"] == "Synced")
    after = {**cluster.api.until_running("web", 2), **cluster.api.until_running("api", 1)}
    assert after == before


def test_atomic_applies_nothing_of_a_commit_with_an_invalid_document(
    cluster: GitCluster, pushed: Pushed
) -> None:
    """Neither its valid changes nor its removals; over a restart too; the next good one is applied whole."""
    pushed.commit_and_push({"web.yaml": job("web"), "api.yaml": job("api"), "old.yaml": job("old")})
    cluster.start(pushed.bare, *SOON, "--atomic")
    names = ("web", "api", "old")
    before = {name: cluster.api.until_running(name, 1) for name in names}
    broken = pushed.commit_and_push(
        {
            "web.yaml": job("web", "red"),
            "api.yaml": job("api", count=-1),
            "old.yaml": None,
            "new.yaml": job("new"),
        }
    )
    held = cluster.api.until(lambda: cluster.api.status()["held"])
    assert (held["revision"], held["confirm"]) == (broken, "")
    assert "--atomic" in held["reason"]
    assert cluster.api.status()["sync"] == "Invalid"
    shown = cluster.command("status")
    assert "api.yaml" in shown
    assert "confirm" not in shown
    assert "api.yaml" in cluster.command("revisions", "-o", "json")
    waited = cluster.command("wait", "--revision", "HEAD", cwd=pushed.work.path, expect=1)
    assert waited == ""
    cluster.restart_server()
    cluster.api.until(lambda: cluster.api.status()["held"])
    assert {name: cluster.api.running(name) for name in names} == before
    assert cluster.api.allocations("new") == []

    mended = pushed.commit_and_push({"api.yaml": job("api")})
    cluster.until_applied(mended)
    cluster.api.until_running("new", 1)
    cluster.api.until(lambda: not cluster.api.running("old"))
    assert cluster.api.running("api") == before["api"]
