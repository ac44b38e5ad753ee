"""What commits do as they come: many at once, one over another, one beside another; and the record of them."""

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from tests.e2e.cluster import eventually
from tests.e2e.git_cluster import GitCluster, Pushed
from tests.require import require

pytestmark = pytest.mark.e2e

NEVER = ("--poll", "1h")
"""Whatever is seen with it was told by a watch."""
COMMITS = 200


def job(name: str, script: str, update: str = "") -> str:
    return f"""
kind: Job
name: {name}
update: {{min_healthy_time: 100ms{update}}}
groups:
  - tasks:
      - config: {{command: [/bin/sh, -c, "{script}"]}}
        kill_timeout: 1s
""".lstrip()


@pytest.fixture
def pushed(tmp_path: Path) -> Pushed:
    require("git")
    (tmp_path / "host").mkdir()
    return Pushed(tmp_path / "host")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[GitCluster]:
    """Not started yet; all of it ends with the test."""
    made = GitCluster(tmp_path, nodes=("node-1",))
    yield made
    made.end()


def test_a_burst_of_commits_ends_at_the_last_and_goes_back_to_none(
    cluster: GitCluster, pushed: Pushed, tmp_path: Path
) -> None:
    """Each is there by itself. What starts is never older than what started before, nor after the last came."""
    starts = tmp_path / "starts"

    def numbered(number: int) -> str:
        return job("web", f"echo {number} $(date +%s.%N) >> {starts}; exec sleep 3600", ", max_parallel: 0")

    work = pushed.work
    work.commit({"web.yaml": numbered(0), "other.yaml": job("other", "exec sleep 3600")})
    cluster.start(work.path, *NEVER)
    cluster.api.until_running("web", 1)
    other = cluster.api.until_running("other", 1)
    last = ""
    for number in range(1, COMMITS + 1):
        last = work.commit({"web.yaml": numbered(number)}, f"number {number}")
    cluster.until_applied(last)
    eventually(lambda: starts.read_text().splitlines()[-1].startswith(f"{COMMITS} "))
    cluster.api.until_running("web", 1)
    begun = [line.split() for line in starts.read_text().splitlines()]
    values = [int(value) for value, _ in begun]
    assert values == sorted(set(values))
    assert values[-1] == COMMITS
    applied = {one["id"]: one["applied_at"] for one in cluster.api.get("/revisions", limit="1000")["items"]}
    at = datetime.fromisoformat(applied[last]).timestamp()
    assert [value for value, when in begun if float(when) > at + 5] in ([], [str(COMMITS)])
    assert cluster.api.running("other") == other
    assert cluster.api.job("other")["version"] == 1


def test_the_newest_wins_in_the_middle_of_a_rollout(cluster: GitCluster, pushed: Pushed) -> None:
    """The one under way never ends by itself: it waits an hour for its health."""

    def coloured(colour: str, healthy_after: str) -> str:
        update = (
            f"max_parallel: 1, min_healthy_time: {healthy_after}, healthy_deadline: 2h, progress_deadline: 3h"
        )
        return (
            f"kind: Job\nname: web\nupdate: {{{update}}}\ngroups:\n  - count: 3\n    tasks:\n"
            f"      - config: {{command: [sleep, '3600']}}\n        env: {{COLOUR: {colour}}}\n"
            "        kill_timeout: 1s\n"
        )

    def colours() -> list[str]:
        found = []
        for pid, _ in cluster.api.running("web").values():
            environment = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
            found += [entry[7:] for entry in environment if entry.startswith("COLOUR=")]
        return sorted(found)

    pushed.commit_and_push({"web.yaml": coloured("blue", "100ms")})
    cluster.start(pushed.bare, *NEVER)
    cluster.api.until_running("web", 3)
    pushed.commit_and_push({"web.yaml": coloured("red", "1h")})
    cluster.api.until(lambda: colours() == ["blue", "blue", "red"])
    pushed.commit_and_push({"web.yaml": coloured("green", "100ms")})
    cluster.command("wait", "--revision", "HEAD", "--timeout", "90s", cwd=pushed.work.path)
    assert colours() == ["green"] * 3
    states = [one["status"] for one in cluster.api.get("/jobs/web/deployments")["items"]]
    assert sorted(states) == ["successful", "successful", "superseded"]


def test_auto_revert_does_not_fight_git(cluster: GitCluster, pushed: Pushed) -> None:
    """What failed is not tried again by commits that do not change it, nor by a restart; what git says next is."""
    revert = ", auto_revert: true, healthy_deadline: 2s, progress_deadline: 3s"
    good = job("web", "exec sleep 3600", revert)
    pushed.commit_and_push({"web.yaml": good})
    cluster.start(pushed.bare, *NEVER)
    before = cluster.api.until_running("web", 1)
    pushed.commit_and_push({"web.yaml": job("web", "exit 1", revert)}, "bad", author="Bob")
    cluster.api.until(lambda: "reverted" in cluster.api.job("web")["reason"])

    def back() -> dict[str, tuple[int, str]] | None:
        found = cluster.api.running("web")
        return found if len(found) == 1 and found != before else None

    reverted = cluster.api.until(back)
    count = len(cluster.api.allocations("web", wanted=False))
    for name in ("api", "db"):
        new = pushed.commit_and_push({f"{name}.yaml": job(name, "exec sleep 3600")})
        cluster.api.until(lambda new=new: cluster.api.status()["revision"] == new)  # type: ignore[misc]
        cluster.api.until_running(name, 1)
    cluster.restart_server()
    cluster.api.until(lambda: cluster.api.status()["nodes"].get("ready") == 1)
    assert cluster.api.job("web")["sync"] == "OutOfSync"
    assert cluster.api.running("web") == reverted
    assert len(cluster.api.allocations("web", wanted=False)) == count

    # Reverted in git as well: that is what runs, so nothing of it moves.
    last = pushed.commit_and_push({"web.yaml": good}, "as it was", author="Cy")
    cluster.until_applied(last)
    assert cluster.api.running("web") == reverted


def revisions(cluster: GitCluster) -> list[str]:
    return [one["id"] for one in cluster.api.get("/revisions")["items"]]


def test_the_record_says_of_each_commit_who_when_and_what_became_of_it(
    cluster: GitCluster, pushed: Pushed
) -> None:
    """In order of arrival; an unrelated commit touches no job; retention cuts the oldest."""
    began = time.time()
    keep = "kind: Cluster\nname: cluster\nretention: {revisions: 4}\n"
    sleeps = "exec sleep 3600"
    first = pushed.commit_and_push({"web.yaml": job("web", sleeps), "api.yaml": job("api", sleeps)}, "one")
    cluster.start(pushed.bare, *NEVER)
    before = {**cluster.api.until_running("web", 1), **cluster.api.until_running("api", 1)}
    words = pushed.commit_and_push({"README.md": "words"}, "only words", author="Bob")
    cluster.until_applied(words)
    broken = pushed.commit_and_push({"api.yaml": "kind: Job\nname: api\ngroups: 3\n"}, "broken", author="Cy")
    cluster.api.until(lambda: cluster.api.status()["revision"] == broken)
    held = pushed.commit_and_push({"api.yaml": None, "web.yaml": None}, "all of it", author="Dee")
    cluster.api.until(lambda: cluster.api.status()["held"])
    pushed.work.git("revert", "--no-edit", "HEAD", author="Eve")
    pushed.push()
    back = pushed.work.git("rev-parse", "HEAD")
    cluster.api.until(lambda: cluster.api.status()["revision"] == back)

    found = cluster.api.get("/revisions")["items"]
    assert [one["id"] for one in found] == [first, words, broken, held, back]
    assert [one["parent"] for one in found] == [None, first, words, broken, held]
    assert [one["author"] for one in found] == ["Ann", "Bob", "Cy", "Dee", "Eve"]
    assert [one["author_email"] for one in found[:2]] == ["ann@example.org", "bob@example.org"]
    assert [one["subject"] for one in found[:4]] == ["one", "only words", "broken", "all of it"]
    assert [one["state"] for one in found] == ["applied", "applied", "applied", "superseded", "applied"]
    assert found[0]["jobs"] == {"created": ["api", "web"], "updated": [], "removed": [], "invalid": []}
    assert found[1]["jobs"] == {"created": [], "updated": [], "removed": [], "invalid": []}
    assert found[2]["jobs"] == {"created": [], "updated": [], "removed": [], "invalid": ["api"]}
    assert [error["file"] for error in found[2]["errors"]] == ["api.yaml"]
    for one in found:
        times = [one["committed_at"], one["seen_at"], one["applied_at"] or one["seen_at"]]
        assert all(began - 60 < datetime.fromisoformat(at).timestamp() < time.time() + 60 for at in times)
        assert times[1:] == sorted(times[1:])
    assert (found[3]["applied_at"], found[3]["held"]["removes"]) == (None, ["api", "web"])
    assert {**cluster.api.running("web"), **cluster.api.running("api")} == before
    assert cluster.api.job("web")["revision"] == first

    shown = cluster.command("revisions")
    assert [word for word in ("superseded", "only words", "Dee") if word not in shown] == []
    for number in range(3):
        last = pushed.commit_and_push({"cluster.yaml": f"{keep}# {number}\n"}, f"keep {number}")
        cluster.api.until(lambda last=last: cluster.api.status()["revision"] == last)  # type: ignore[misc]
    cluster.restart_server()  # it looks at what retention drops at once
    kept = cluster.api.until(lambda: ids if words not in (ids := revisions(cluster)) else None)
    assert kept[-1] == last
    assert kept[0] == first, "it is what asked for what runs"
    cluster.api.until(lambda: cluster.api.status()["nodes"].get("ready") == 1)
    assert {**cluster.api.running("web"), **cluster.api.running("api")} == before
