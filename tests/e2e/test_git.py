"""A control plane follows a git repository, and what is pushed runs: real git, real hosts, real processes."""

import base64
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
import requests

from tests.e2e.cluster import eventually, is_alive
from tests.e2e.git_cluster import NODES, GitCluster, Pushed
from tests.git_hosts import GitHttps, Sshd, running_sshd
from tests.git_signing import SshSigner, signed
from tests.require import require

pytestmark = pytest.mark.e2e

SOON = ("--poll", "300ms")
NEVER = ("--poll", "1h")
"""Whatever is seen with it was told by a watch."""

CLUSTER = "kind: Cluster\nname: cluster\nplacement: spread\n"


def job(name: str, colour: str = "blue", *, count: int = 1, update: str = "min_healthy_time: 200ms") -> str:
    return f"""
kind: Job
name: {name}
update: {{max_parallel: 1, {update}}}
groups:
  - count: {count}
    tasks:
      - config: {{command: [sleep, "3600"]}}
        env: {{COLOUR: {colour}}}
        kill_timeout: 2s
""".lstrip()


def colour_of(pid: int) -> str:
    environment = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(entry.split("=", 1) for entry in environment if entry)["COLOUR"]


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


def test_a_push_to_a_local_repository_runs_at_once_and_a_revert_touches_only_what_it_must(
    cluster: GitCluster, pushed: Pushed
) -> None:
    """The revert comes in the middle of a rollout: the instance that was not replaced yet stays as it is."""
    pushed.commit_and_push({"cluster.yaml": CLUSTER})
    cluster.start(pushed.bare, *NEVER)
    first = pushed.commit_and_push({"web.yaml": job("web", count=2)})
    before = cluster.api.until_running("web", 2)
    assert {one["node"] for one in cluster.api.allocations("web")} == set(NODES)
    digest = cluster.api.job("web")["digest"]

    patient = "min_healthy_time: 1h, healthy_deadline: 2h, progress_deadline: 3h"
    pushed.commit_and_push({"web.yaml": job("web", "red", count=2, update=patient)}, "red", author="Bob")

    def half_way() -> dict[str, tuple[int, str]] | None:
        running = cluster.api.running("web")
        changed = [name for name, found in running.items() if found != before[name]]
        return running if len(running) == 2 and len(changed) == 1 else None

    rolling = cluster.api.until(half_way)
    (replaced,) = [name for name in before if rolling[name] != before[name]]
    (kept,) = before.keys() - {replaced}
    assert (colour_of(rolling[replaced][0]), colour_of(rolling[kept][0])) == ("red", "blue")

    pushed.work.git("revert", "--no-edit", "HEAD", author="Cy")
    pushed.push()
    cluster.command("wait", "--revision", "HEAD", "--timeout", "60s", cwd=pushed.work.path)
    after = cluster.api.until_running("web", 2)
    assert after[kept] == before[kept]
    assert colour_of(after[replaced][0]) == "blue"
    held = cluster.api.job("web")
    assert (held["version"], held["digest"]) == (3, digest)
    assert held["revision"] not in {first, ""}


def test_commits_between_two_looks_keep_their_own_authors(cluster: GitCluster, pushed: Pushed) -> None:
    """One push of five commits: each job is blamed on who changed it last, at its line."""
    pushed.commit({"cluster.yaml": CLUSTER, "jobs/all.yaml": f"{job('api')}---\n{job('web')}"}, "both")
    pushed.push()
    cluster.start(pushed.bare, *NEVER)
    cluster.api.until_running("web", 1)
    api = cluster.api.until_running("api", 1)
    pushed.commit({"web.yaml": job("web"), "jobs/all.yaml": job("api")}, "web moves out", author="Bob")
    web = pushed.commit({"web.yaml": f"# why: none\n\n{job('web', 'red')}"}, "web is red", author="Cy")
    new = pushed.commit({"new.yaml": job("new")}, "a new one", author="Dee")
    last = pushed.commit({"README.md": "nothing that runs"}, "words", author="Eve")
    pushed.push()
    cluster.until_applied(last)
    cluster.api.until_running("new", 1)

    explained = cluster.command("explain", "web")
    assert "web.yaml:3" in explained
    assert f'{web[:8]} "web is red" by Cy <cy@example.org>' in explained
    cluster.api.until(lambda: cluster.api.allocations("web")[0]["job_version"] == 2)
    assert "by Cy <cy@example.org>" in cluster.command("explain", "web.web[0]")
    assert f'{new[:8]} "a new one" by Dee' in cluster.command("explain", "new")
    assert 'both" by Ann' in cluster.command("explain", "api.api[0]")
    assert cluster.api.running("api") == api
    assert f'{last[:8]} "words" by Eve' in cluster.command("status")


def test_a_commit_in_a_work_tree_is_seen_without_a_push_and_a_rewritten_history_is_followed(
    cluster: GitCluster, pushed: Pushed
) -> None:
    """The control plane follows the clone itself: its branch is amended as a force-push would."""
    work = pushed.work
    work.commit({"web.yaml": job("web")})
    cluster.start(work.path, *NEVER)
    cluster.api.until_running("web", 1)
    wrong = work.commit({"web.yaml": job("web", "red"), "other.yaml": job("other")}, "wrong", author="Bob")
    cluster.until_applied(wrong)
    work.git("reset", "--quiet", "--hard", "HEAD~1")
    right = work.commit({"web.yaml": job("web", "green")}, "right", author="Cy")
    cluster.until_applied(right)
    cluster.api.until(lambda: cluster.api.allocations("other") == [])
    cluster.api.until(lambda: [colour_of(pid) for pid, _ in cluster.api.running("web").values()] == ["green"])
    assert '"right" by Cy' in cluster.command("explain", "web")
    states = {one["id"]: one["state"] for one in cluster.api.get("/revisions")["items"]}
    assert states[right] == "applied"


def test_https_with_a_token_and_a_host_that_dies(cluster: GitCluster, pushed: Pushed, tmp_path: Path) -> None:
    """While the host refuses, nothing changes; the words say what is wrong and for how long."""
    pushed.commit_and_push({"cluster.yaml": CLUSTER, "web.yaml": job("web", count=2)})
    token = tmp_path / "token"
    token.write_text("s3cret-token\n")
    with GitHttps(tmp_path / "host", login="trueup:s3cret-token").running() as host:
        access = ("--git-token-file", str(token), "--git-ca", str(host.ca_file))
        cluster.start(host.url("specs.git"), *SOON, *access)
        before = cluster.api.until_running("web", 2)

        host.login = "trueup:renewed"
        unknown = cluster.api.until(lambda: cluster.api.status()["sync"] == "Unknown")
        pushed.commit_and_push({"web.yaml": None}, "never seen")
        assert unknown
        source = cluster.api.status()["source"]
        shown = cluster.command("status")
        assert "--git-token-file" in source["error"]
        assert "--git-token-file" in shown
        assert "last read" in shown
        age = datetime.now(UTC) - datetime.fromisoformat(source["last_success_at"])
        assert 0 < age.total_seconds() < 120
        assert cluster.api.running("web") == before

        cluster.restart_server()
        cluster.api.until(lambda: cluster.api.status()["nodes"].get("ready") == len(NODES))
        assert cluster.api.until(lambda: cluster.api.status()["sync"] == "Unknown")
        assert "last read" in cluster.command("status")
        assert cluster.api.running("web") == before

        token.write_text("renewed")
        seen = pushed.commit_and_push({"web.yaml": job("web", "red", count=2)}, "back", author="Bob")
        cluster.until_applied(seen)
        after = cluster.api.until(
            lambda: (found := cluster.api.running("web")) and not set(found.values()) & set(before.values())
        )
        assert after
        everything = f"{cluster.server.output()}{cluster.command('status', '-o', 'json')}{all_told(cluster)}"
        for login in ("trueup:s3cret-token", "trueup:renewed"):
            assert base64.b64encode(login.encode()).decode() not in everything
        assert "s3cret-token" not in everything


def all_told(cluster: GitCluster) -> str:
    """What the control plane tells anyone: pages, events, figures, its store, and its processes' arguments."""
    url = cluster.server.url
    told = []
    for path in (
        "/",
        "/status",
        "/events",
        "/revisions",
        "/jobs",
        "/allocations",
        "/nodes",
        "/metrics",
        "/openapi.json",
    ):
        answer = requests.get(url + path, timeout=30)
        assert answer.ok, path
        told.append(answer.text)
    process = psutil.Process(cluster.server.popen.pid)
    for one in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # a poll's git lives for a moment only
            told.append(" ".join(one.cmdline()))
    told += [file.read_bytes().decode("latin-1") for file in (cluster.folder / "server").glob("trueup.db*")]
    return "\n".join(told)


def test_ssh_with_a_key_and_known_hosts(
    cluster: GitCluster, pushed: Pushed, sshd: Sshd, tmp_path: Path
) -> None:
    """An unknown host is not taken on trust: nothing runs until its key is written down."""
    first = pushed.commit_and_push({"web.yaml": job("web")})
    known_hosts = tmp_path / "known"
    known_hosts.write_text("")
    access = ("--git-ssh-key", str(sshd.key), "--git-known-hosts", str(known_hosts))
    cluster.start(sshd.url(pushed.bare), *SOON, *access)
    cluster.api.until(lambda: "--git-known-hosts" in (cluster.api.status()["source"]["error"] or ""))
    assert "Unknown" in cluster.command("status")
    assert cluster.api.allocations() == []
    known_hosts.write_text(sshd.known_hosts.read_text())
    cluster.until_applied(first)
    cluster.api.until_running("web", 1)
    second = pushed.commit_and_push({"other.yaml": job("other")}, author="Bob")
    cluster.until_applied(second)
    cluster.api.until_running("other", 1)


def test_only_signed_commits_run(cluster: GitCluster, pushed: Pushed, tmp_path: Path) -> None:
    """An unsigned one changes nothing, is told with its reason, also after a restart; a signed one on top runs."""
    require("ssh")
    ann = SshSigner(tmp_path)
    allowed = tmp_path / "allowed"
    allowed.write_text(ann.allowed())
    signed(pushed.work, ann, {"web.yaml": job("web")})
    pushed.push()
    cluster.start(pushed.bare, *NEVER, "--git-allowed-signers", str(allowed))
    before = cluster.api.until_running("web", 1)
    refused = pushed.commit_and_push({"web.yaml": job("web", "red"), "eve.yaml": job("eve")}, author="Eve")

    def is_refused() -> bool:
        status = cluster.api.status()
        reason = f"commit {refused} is refused: it has no signature"
        return bool(status["sync"] == "Unknown" and reason in (status["source"]["error"] or ""))

    cluster.api.until(is_refused)
    assert f"commit {refused} is refused" in cluster.command("status")
    cluster.restart_server()
    cluster.api.until(is_refused)
    assert cluster.api.running("web") == before
    assert cluster.api.allocations("eve") == []
    better = signed(pushed.work, ann, {"web.yaml": job("web", "green"), "eve.yaml": None})
    pushed.push()
    cluster.until_applied(better)
    cluster.api.until(lambda: [colour_of(pid) for pid, _ in cluster.api.running("web").values()] == ["green"])


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running_sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


def test_a_branch_and_a_folder_are_followed_and_its_only_job_is_held_until_that_is_confirmed(
    cluster: GitCluster, pushed: Pushed
) -> None:
    """The hold outlives a restart and further commits; the printed document, committed, ends the job."""
    pushed.commit_and_push({"elsewhere/other.yaml": job("other")})
    pushed.work.git("checkout", "--quiet", "-b", "release")
    pushed.commit_and_push({"shop/web.yaml": job("web")})
    cluster.start(pushed.bare, "--ref", "release", "--path", "shop", *NEVER)
    before = cluster.api.until_running("web", 1)
    assert cluster.api.allocations("other") == []

    removal = pushed.commit_and_push({"shop/web.yaml": None}, "gone", author="Bob")
    held = cluster.api.until(lambda: cluster.api.status()["held"])
    assert (held["revision"], held["removes"]) == (removal, ["web"])
    assert cluster.api.status()["sync"] == "OutOfSync"
    cluster.restart_server()
    pushed.commit_and_push({"shop/README.md": "empty"}, "words")
    shown = cluster.api.until(lambda: text if "held" in (text := cluster.command("status")) else None)
    document = shown[shown.index("kind: Cluster") : shown.index(held["confirm"])] + held["confirm"]
    assert cluster.api.running("web") == before
    lines = "\n".join(line.strip() for line in document.splitlines())
    confirmed = pushed.commit_and_push({"shop/cluster.yaml": lines + "\n"}, "yes", author="Cy")
    cluster.until_applied(confirmed)
    eventually(lambda: not any(is_alive(pid) for pid, _ in before.values()))
    assert cluster.api.status()["held"] is None
