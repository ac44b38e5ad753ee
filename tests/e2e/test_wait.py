"""`trueup wait` in CI, right after a push: whatever comes between, it ends by what became of that commit."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import TRUEUP, environment
from tests.e2e.git_cluster import GitCluster, Pushed
from tests.require import require

pytestmark = pytest.mark.e2e

TIMED_OUT = 124
PLAIN = """
kind: Job
name: {name}
update: {{min_healthy_time: 300ms, max_parallel: 0}}
groups:
  - count: {count}
    restart: {{attempts: 0}}
    reschedule: {{attempts: 0}}
    tasks: [{{config: {{command: [{command}]}}, env: {{COLOUR: {colour}}}, kill_timeout: 1s,
             resources: {{cpu: 0.01, memory: 8MiB}}}}]
"""


def job(name: str, colour: str = "blue", *, command: str = 'sleep, "3600"', count: int = 1) -> str:
    return PLAIN.format(name=name, colour=colour, command=command, count=count)


@pytest.fixture
def pushed(tmp_path: Path) -> Pushed:
    require("git")
    (tmp_path / "host").mkdir()
    return Pushed(tmp_path / "host")


@pytest.fixture
def cluster(tmp_path: Path, pushed: Pushed) -> Iterator[GitCluster]:
    """A control plane that follows the pushes, and one node."""
    made = GitCluster(tmp_path, nodes=("node-1",))
    pushed.commit_and_push({"web.yaml": job("web"), "db.yaml": job("db")}, "first")
    made.start(pushed.bare)
    yield made
    made.end()


class Waits:
    """`trueup wait` in the clone of who pushed."""

    def __init__(self, cluster: GitCluster, pushed: Pushed) -> None:
        self._cluster, self._folder = cluster, pushed.work.path

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        address = ("--address", self._cluster.server.url)
        return subprocess.Popen(
            [str(TRUEUP), "wait", *arguments, *address],
            cwd=self._folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: str, expect: int = 0) -> str:
        return ended(self.start(*arguments), expect=expect)


def ended(process: "subprocess.Popen[str]", *, expect: int = 0) -> str:
    out, err = process.communicate(timeout=90)
    assert process.returncode == expect, out + err
    return out + err


def test_a_commit_and_what_may_come_between(cluster: GitCluster, pushed: Pushed) -> None:
    """Not pushed yet, already true, of no consequence, overtaken by another before anyone saw it."""
    wait = Waits(cluster, pushed)
    wait("--revision", "HEAD", "--timeout", "60s")
    before = cluster.api.running("web")

    unseen = pushed.commit({"web.yaml": job("web", "red")}, "red")
    process = wait.start("--revision", unseen, "--timeout", "60s")
    assert "not seen yet" in wait("--revision", unseen, "--timeout", "100ms", expect=TIMED_OUT)
    pushed.push()
    ended(process)
    assert cluster.api.running("web").values() != before.values()
    assert cluster.api.job("web")["health"] == "Healthy"

    wait("--revision", unseen)
    wait("--revision", unseen[:10])
    nothing = pushed.commit_and_push({"README.md": "Nothing runs by this."}, "readme")
    wait("--revision", nothing, "--timeout", "60s")

    overtaken = pushed.commit({"web.yaml": job("web", "green")}, "green")
    newest = pushed.commit_and_push({"web.yaml": job("web", "yellow", count=3)}, "yellow")
    wait("--revision", overtaken, "--timeout", "60s")
    assert cluster.api.status()["revision"] == newest
    found = cluster.api.job("web")
    assert (found["health"], found["groups"][0]["healthy"]) == ("Healthy", 3)


def test_a_commit_that_fails_or_is_mended(cluster: GitCluster, pushed: Pushed) -> None:
    """Invalid and failed end it with the cause; a later commit that mends it makes the same wait succeed."""
    wait = Waits(cluster, pushed)
    wait("--revision", "HEAD", "--timeout", "60s")
    wrong = pushed.commit_and_push({"web.yaml": "kind: Job\nname: web\ncuont: 1\n"}, "a typo")
    said = wait("--revision", wrong, "--timeout", "60s", expect=1)
    assert "web.yaml:3:1: cuont: unknown key" in said
    mended = pushed.commit_and_push({"web.yaml": job("web", "red")}, "mended")
    wait("--revision", mended, "--timeout", "60s")
    wait("--revision", wrong, "--timeout", "60s")

    failing = pushed.commit_and_push({"web.yaml": job("web", command='"false"')}, "fails")
    said = wait("--revision", failing, "--timeout", "60s", expect=1)
    assert "web" in said
    assert "failed" in said
    back = pushed.commit_and_push({"web.yaml": job("web", "green")}, "back")
    wait("--revision", back, "--timeout", "60s")
    wait("--revision", failing, "--timeout", "60s")
    assert "there is no job 'nobody'" in wait("nobody", expect=1)


def test_a_commit_that_is_held(cluster: GitCluster, pushed: Pushed) -> None:
    """It ends with the document that confirms; an earlier commit, which is applied, is not held for it."""
    wait = Waits(cluster, pushed)
    first = pushed.work.git("rev-parse", "HEAD").strip()
    wait("--revision", first, "--timeout", "60s")
    held = pushed.commit_and_push({"web.yaml": None, "db.yaml": None}, "all of it")
    said = wait("--revision", held, "--timeout", "60s", expect=1)
    assert "is held" in said
    assert "confirm: " in said
    wait("--revision", first)
    later = pushed.commit_and_push({"README.md": "still"}, "later")
    assert "is held" in wait("--revision", held, "--timeout", "60s", expect=1)
    pushed.commit_and_push({"web.yaml": job("web"), "db.yaml": job("db")}, "as it was")
    wait("--revision", later, "--timeout", "60s")
