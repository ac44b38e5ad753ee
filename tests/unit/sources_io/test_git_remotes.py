"""Several remotes of one history, and the server's own repository among them, with the real git."""

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from tests.git_hosts import GitHttps, running_sshd
from tests.unit.sources_io.repository import ENVIRONMENT, ManualClock, Repo, job_text, until
from tests.unit.sources_io.test_git_hanging import git_children
from trueup.models.desired import DesiredState
from trueup.models.ids import RevisionId
from trueup.models.revision import RemoteStatus
from trueup.models.source_error import SourceUnavailable
from trueup.sources.git import GitSettings
from trueup.sources.git_emergency import emergency_branch, read_ref
from trueup.sources.snapshot import MAX_FILE_BYTES
from trueup.sources.spec_source import TreeSpecSource, git_remotes_source

PUSHER = {
    **ENVIRONMENT,
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Eve",
    "GIT_AUTHOR_EMAIL": "eve@example.org",
    "GIT_COMMITTER_NAME": "Eve",
    "GIT_COMMITTER_EMAIL": "eve@example.org",
}


def git(*arguments: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        ["git", *map(str, arguments)], cwd=cwd, env=PUSHER, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


class World:
    """People with clones, bare hosts they push to, and a server that follows those."""

    def __init__(self, folder: Path, clock: ManualClock) -> None:
        self.folder = folder
        self.clock = clock
        self.data = folder / "data"
        self.work = Repo(folder / "work")
        self.emergency = self.data / "emergency.git"
        self.applied: RevisionId | None = None
        self.source: TreeSpecSource | None = None

    def host(self, name: str) -> Path:
        path = self.folder / name
        if not path.exists():
            git("init", "--quiet", "--bare", "--initial-branch=main", path, cwd=self.folder)
        return path

    def push(self, *hosts: str, files: dict[str, str | None] | None = None, options: str = "") -> RevisionId:
        """Commits *files*, if any, and pushes to hosts; the commit."""
        if files is not None:
            self.work.commit(files)
        for host in hosts:
            self.work.git("push", "--quiet", *options.split(), str(self.host(host)), "HEAD:refs/heads/main")
        return RevisionId(self.work.git("rev-parse", "HEAD"))

    def follow(self, *hosts: str | Path, **settings: object) -> None:
        self.follow_urls(
            [str(self.host(host) if isinstance(host, str) else host) for host in hosts], **settings
        )

    def follow_urls(self, urls: Sequence[str], **settings: object) -> None:
        self.close()
        remotes = [GitSettings(url=url, **settings) for url in urls]  # type: ignore[arg-type]
        self.source = git_remotes_source(remotes, self.data, self.clock, environment=ENVIRONMENT)

    def look(self) -> DesiredState:
        assert self.source is not None
        self.source.look_now()
        return self.source.read(self.applied)

    def apply(self) -> RevisionId:
        """Looks, and looks again once what was found is applied, as the sync loop does."""
        self.applied = self.look().commit.id
        assert self.source is not None
        self.source.read(self.applied)
        return self.applied

    def refused(self) -> str:
        with pytest.raises(SourceUnavailable) as raised:
            self.look()
        return str(raised.value)

    @property
    def remotes(self) -> tuple[RemoteStatus, ...]:
        assert self.source is not None
        return self.source.status.remotes

    @property
    def states(self) -> str:
        return " ".join(remote.state for remote in self.remotes)

    def clone_of_emergency(self, name: str = "clone") -> Path:
        path = self.folder / name
        git("clone", "--quiet", self.emergency, path, cwd=self.folder)
        return path

    def commit_in(self, clone: Path, files: dict[str, str], subject: str = "mend") -> RevisionId:
        for name, text in files.items():
            (clone / name).write_text(text)
        git("add", "--all", cwd=clone)
        git("commit", "--quiet", "-m", subject, cwd=clone)
        return RevisionId(git("rev-parse", "HEAD", cwd=clone))

    def close(self) -> None:
        if self.source is not None:
            self.source.close()


@pytest.fixture
def world(tmp_path: Path, clock: ManualClock, repo: Repo) -> Iterator[World]:
    made = World(tmp_path, clock)
    yield made
    made.close()


def away(path: Path) -> Callable[[], object]:
    """Takes a repository away; what is returned brings it back."""
    other = path.with_name(f"{path.name}-away")
    path.rename(other)
    return lambda: other.rename(path)


def test_the_one_furthest_ahead_is_followed(world: World) -> None:
    first = world.push("one", "two", files={"a.yaml": job_text("web")})
    world.follow("one", "two")
    assert world.apply() == first
    assert world.states == "followed current current"
    second = world.push("two", files={"a.yaml": job_text("web", "2")})
    assert world.apply() == second
    assert world.states == "behind followed current"
    assert [remote.url for remote in world.remotes] == [
        str(world.host("one")),
        str(world.host("two")),
        str(world.emergency),
    ]
    world.push("one")
    assert world.apply() == second
    assert world.states == "followed current current"


def test_a_dead_remote_stops_nothing_and_is_named(world: World) -> None:
    world.push("one", "two", files={"a.yaml": job_text("web")})
    world.follow("one", "two")
    world.apply()
    back = away(world.host("one"))
    second = world.push("two", files={"a.yaml": job_text("web", "2")})
    assert world.apply() == second
    assert world.states.startswith("unreachable followed")
    assert str(world.folder / "one") in world.remotes[0].error
    assert world.source is not None
    assert world.source.status.error == ""
    back()
    assert world.apply() == second
    assert world.states == "behind followed current"


def test_all_dead_is_an_error_that_names_each(world: World) -> None:
    first = world.push("one", "two", files={"a.yaml": job_text("web")})
    world.follow("one", "two")
    world.apply()
    away(world.host("one"))
    back = away(world.host("two"))
    words = world.refused()
    assert str(world.folder / "one") in words
    assert str(world.folder / "two") in words
    assert world.states == "unreachable unreachable current"
    assert world.remotes[0].last_success_at is not None
    back()
    assert world.apply() == first


def test_two_that_both_moved_hold_until_they_are_merged(world: World) -> None:
    base = world.push("one", "two", files={"a.yaml": job_text("web")})
    world.follow("one", "two")
    world.apply()
    world.push("one", files={"a.yaml": job_text("web", "2")})
    world.work.git("branch", "first")
    world.work.git("reset", "--quiet", "--hard", base)
    world.push("two", files={"b.yaml": job_text("api")})
    assert "diverged" in world.refused()
    assert world.states == "diverged diverged current"
    world.work.git("merge", "--quiet", "--no-edit", "first")
    merged = world.push("two")
    assert world.apply() == merged
    assert world.states == "behind followed current"


def test_a_rewritten_history_is_followed_only_where_there_is_one_remote(world: World) -> None:
    world.push("one", "two", files={"a.yaml": job_text("web")})
    second = world.push("one", "two", files={"a.yaml": job_text("web", "2")})
    world.follow("one", "two")
    world.apply()
    world.work.git("reset", "--quiet", "--hard", "HEAD~1")
    third = world.push("one", files={"a.yaml": job_text("web", "3")}, options="--force")
    assert world.apply() == second
    assert world.states == "behind followed current"
    world.push("two", options="--force")
    assert "has the applied commit" in world.refused()
    world.follow("one")
    assert world.apply() == third
    assert world.states == "followed current"
    assert read_ref(world.emergency, "refs/heads/main") == third


def test_a_held_revision_is_not_kept(world: World) -> None:
    """Kept is what is applied, not what is newest."""
    first = world.push("one", files={"a.yaml": job_text("web")})
    world.follow("one")
    world.apply()
    held = world.push("one", files={"a.yaml": None})
    assert world.look().commit.id == held
    assert world.look().commit.id == held
    assert read_ref(world.emergency, "refs/heads/main") == first
    assert world.states == "followed behind"
    assert world.source is not None
    assert world.source.next_look is not None
    assert world.source.next_look > world.clock.now()


def test_a_clone_of_what_is_kept_has_every_file_of_the_applied_commit(world: World) -> None:
    """Also those outside `--path`; and it is one tree, not the whole history."""
    world.push("one", files={"specs/a.yaml": job_text("web"), "docs/old.txt": "old"})
    world.push("one", files={"docs/old.txt": None, "docs/a.bin": "x" * 10000, "run.sh": "echo\n"})
    world.push("one", files={"specs/a.yaml": job_text("web", "2")})
    world.follow("one", paths=("specs",))
    applied = world.apply()
    clone = world.clone_of_emergency()
    assert git("rev-parse", "HEAD", cwd=clone) == applied
    assert git("branch", "--show-current", cwd=clone) == "main"
    assert (clone / "docs/a.bin").read_text() == "x" * 10000
    assert git("fsck", "--full", "--strict", cwd=clone) is not None
    assert git("rev-list", "--count", "HEAD", cwd=clone) == "1"
    assert not (clone / "docs/old.txt").exists()


def test_what_is_pushed_there_runs_and_is_not_undone_when_the_host_returns(world: World) -> None:
    first = world.push("one", files={"a.yaml": job_text("web")})
    world.follow("one")
    world.apply()
    back = away(world.host("one"))
    clone = world.clone_of_emergency()
    pushed = world.commit_in(clone, {"a.yaml": job_text("web", "2")})
    git("push", "--quiet", "origin", "HEAD", cwd=clone)
    state = world.look()
    assert (state.commit.id, state.commit.author, state.commit.parent) == (pushed, "Eve", first)
    job = state.jobs["web"].commit
    assert job is not None
    assert (job.id, job.author) == (pushed, "Eve")
    assert world.source is not None
    assert world.source.status.error == ""
    assert world.states == "unreachable followed"
    world.apply()
    more = world.commit_in(clone, {"b.yaml": job_text("api")})
    git("push", "--quiet", "origin", "HEAD", cwd=clone)
    assert world.apply() == more

    back()
    assert world.apply() == more
    assert world.states == "behind followed"
    git("push", "--quiet", world.host("one"), "HEAD:main", cwd=clone)
    assert world.apply() == more
    assert world.states == "followed current"
    world.work.git("pull", "--quiet", str(world.host("one")), "main")
    last = world.push("one", files={"c.yaml": job_text("db")})
    assert world.apply() == last
    assert read_ref(world.emergency, "refs/heads/main") == last


def test_a_full_clone_pushes_there_too(world: World) -> None:
    """As whoever works with the repository has one: its next commit, straight to the server."""
    world.push("one", files={"a.yaml": job_text("web")})
    world.push("one", files={"a.yaml": job_text("web", "2")})
    world.follow("one")
    world.apply()
    away(world.host("one"))
    world.work.commit({"a.yaml": job_text("web", "3")}, author="Bob")
    world.work.git("push", "--quiet", str(world.emergency), "HEAD:main")
    state = world.look()
    assert (state.commit.id, state.commit.author) == (world.work.git("rev-parse", "HEAD"), "Bob")
    world.work.git("fetch", "--quiet", str(world.emergency), "main")
    assert world.work.git("rev-list", "--count", "HEAD") == "3"


def test_both_moved_is_held_and_a_merge_pushed_to_either_releases_it(world: World) -> None:
    base = world.push("one", files={"a.yaml": job_text("web")})
    world.follow("one")
    world.apply()
    back = away(world.host("one"))
    clone = world.clone_of_emergency()
    world.commit_in(clone, {"b.yaml": job_text("api")})
    git("push", "--quiet", "origin", "HEAD", cwd=clone)
    back()
    world.push("one", files={"a.yaml": job_text("web", "2")})
    words = world.refused()
    assert "diverged" in words
    assert "merged and pushed" in words
    assert str(world.emergency) in words
    assert world.states == "diverged diverged"
    world.work.git("fetch", "--quiet", str(world.emergency), "main")
    assert world.work.git("merge-base", "HEAD", "FETCH_HEAD") == base
    world.work.git("merge", "--quiet", "--no-edit", "FETCH_HEAD")
    merged = world.push("one")
    assert world.apply() == merged
    assert world.states == "followed current"


def test_a_host_that_moved_unseen_is_behind_what_was_applied_in_its_absence(world: World) -> None:
    world.push("one", files={"a.yaml": job_text("web")})
    world.follow("one")
    world.apply()
    back = away(world.host("one"))
    clone = world.clone_of_emergency()
    pushed = world.commit_in(clone, {"b.yaml": job_text("api")})
    git("push", "--quiet", "origin", "HEAD", cwd=clone)
    assert world.apply() == pushed
    back()
    world.push("one", files={"a.yaml": job_text("web", "2")})
    assert world.apply() == pushed
    assert world.states == "behind followed"


def test_a_restart_takes_up_what_was_pushed(world: World) -> None:
    world.push("one", files={"a.yaml": job_text("web")})
    world.follow("one")
    world.apply()
    host = world.host("one")
    away(host)
    world.follow(host)
    assert str(host) in world.refused()
    assert world.states == "unreachable current"
    clone = world.clone_of_emergency()
    pushed = world.commit_in(clone, {"b.yaml": job_text("api")})
    git("push", "--quiet", "origin", "HEAD", cwd=clone)
    world.follow(host)
    assert world.apply() == pushed
    world.follow(host)
    assert world.apply() == pushed


def test_a_push_is_read_while_the_host_hangs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host takes the call and says nothing: whoever waits for it goes on with what is pushed here."""
    world.push("one", files={"a.yaml": job_text("web")})
    world.follow("one")
    world.apply()
    monkeypatch.setattr("trueup.sources.git_remotes.PATIENCE_SECONDS", 3600)
    os.mkfifo(world.host("one") / "packed-refs")  # whoever reads it waits for a writer
    source = world.source
    assert source is not None
    source.start_watching(lambda: None)
    source.look_now()
    found: list[str] = []

    def read() -> None:
        with suppress(SourceUnavailable):
            found.append(source.read(world.applied).commit.id)

    reading = threading.Thread(target=read)
    reading.start()
    until(lambda: bool(git_children()))
    clone = world.clone_of_emergency()
    pushed = world.commit_in(clone, {"b.yaml": job_text("api")})
    git("push", "--quiet", "origin", "HEAD", cwd=clone)
    reading.join(30)
    assert found == [pushed]
    # The one that hangs is not waited for again.
    more = world.commit_in(clone, {"c.yaml": job_text("db")})
    git("push", "--quiet", "origin", "HEAD", cwd=clone)
    until(lambda: source.read(pushed).commit.id == more)


def test_hooks_there_never_run_and_nothing_is_deleted_or_rewritten(world: World, tmp_path: Path) -> None:
    world.push("one", files={"a.yaml": job_text("web")})
    world.follow("one")
    world.apply()
    canary = tmp_path / "canary"
    hooks = world.emergency / "hooks"
    assert not hooks.exists()
    hooks.mkdir()
    for name in ("pre-receive", "update", "post-receive", "post-update", "reference-transaction"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {canary}\n")
        (hooks / name).chmod(0o755)
    clone = world.clone_of_emergency()
    world.commit_in(clone, {"b.yaml": job_text("api")})
    git("push", "--quiet", "origin", "HEAD", cwd=clone)
    world.apply()
    for refused in (("--force", "origin", "HEAD~1:main"), ("origin", ":main")):
        with pytest.raises(subprocess.CalledProcessError):
            git("push", *refused, cwd=clone)
    assert not canary.exists()
    assert world.emergency.stat().st_mode & 0o777 == 0o700


def test_its_size_is_that_of_one_tree(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """After many commits of incompressible files, what is not in the applied one is gone."""
    monkeypatch.setattr("trueup.sources.git_emergency._PACK_AFTER", 4)
    monkeypatch.setattr("trueup.sources.git_emergency._UNREACHABLE_KEPT", "now")
    world.host("one")
    world.push("one", files={"a.yaml": job_text("web")})
    world.follow("one")
    for number in range(12):
        (world.work.path / "noise").write_bytes(os.urandom(200_000))
        world.push("one", files={"a.yaml": job_text("web", str(number + 1))})
        world.apply()
    size = sum(path.stat().st_size for path in world.emergency.rglob("*") if path.is_file())
    assert size < 1_200_000
    assert world.clone_of_emergency().joinpath("noise").stat().st_size == 200_000


def test_a_repository_that_was_removed_is_made_anew(world: World) -> None:
    applied = world.push("one", files={"a.yaml": job_text("web")})
    world.follow("one")
    world.apply()
    shutil.rmtree(world.emergency)
    world.apply()
    assert read_ref(world.emergency, "refs/heads/main") == applied
    assert world.states == "followed current"


def test_a_push_wakes_also_where_the_repository_was_made_anew(world: World) -> None:
    world.push("one", files={"a.yaml": job_text("web")})
    world.follow("one")
    assert world.source is not None
    woken = threading.Event()
    world.source.start_watching(woken.set)
    world.apply()
    shutil.rmtree(world.emergency)
    world.apply()
    away(world.host("one"))
    clone = world.clone_of_emergency()
    pushed = world.commit_in(clone, {"b.yaml": job_text("api")})
    woken.clear()
    git("push", "--quiet", "origin", "HEAD", cwd=clone)
    assert woken.wait(20)
    assert world.source.read(world.applied).commit.id == pushed


def test_a_repository_of_the_longer_hash_is_kept_and_one_of_the_shorter_makes_room(world: World) -> None:
    world.push("one", files={"a.yaml": job_text("web")})
    world.follow("one")
    world.apply()
    long = Repo(world.folder / "long", "--object-format=sha256")
    applied = long.commit({"a.yaml": job_text("web", "2")})
    world.follow(long.path)
    assert world.apply() == applied
    assert world.states == "followed current"
    clone = world.clone_of_emergency()
    assert git("rev-parse", "HEAD", cwd=clone) == applied
    away(long.path)
    pushed = world.commit_in(clone, {"b.yaml": job_text("api")})
    git("push", "--quiet", "origin", "HEAD", cwd=clone)
    assert len(pushed) == 64
    assert world.apply() == pushed


def test_files_that_the_mirror_leaves_at_the_host_are_fetched(world: World) -> None:
    """A host that can leave large files out: the mirror has none, and what is kept has all of the applied commit."""
    large = "x" * (2 * MAX_FILE_BYTES)
    world.push("one", files={"a.yaml": job_text("web"), "large.bin": large, "old.bin": f"{large}old"})
    world.push("one", files={"old.bin": None})
    with GitHttps(world.folder, login="ci:s3cret").running() as host:
        host.filters = True
        token = world.folder / "token"
        token.write_text("ci:s3cret")
        token.chmod(0o600)
        access = {"ca_file": host.ca_file, "token_file": token}
        world.follow_urls([host.url("one")], **access)
        applied = world.apply()
        mirrors = [
            path for path in (world.data / "git").glob("*/mirror.git") if (path / "objects/pack").exists()
        ]
        assert sum(file.stat().st_size for path in mirrors for file in path.rglob("*.pack")) < 100_000
        assert world.states == "followed current"
        clone = world.clone_of_emergency()
        assert (clone / "large.bin").read_text() == large
        assert git("rev-parse", "HEAD", cwd=clone) == applied
        assert "s3cret" not in "".join(
            path.read_text(errors="replace") for path in world.emergency.rglob("*") if path.is_file()
        )


def test_what_was_pushed_beside_what_is_applied_is_kept_and_named(world: World) -> None:
    """Pushed onto an older commit: it is behind, and not overwritten."""
    world.push("one", files={"a.yaml": job_text("web")})
    world.follow("one")
    world.apply()
    clone = world.clone_of_emergency()
    stray = world.commit_in(clone, {"b.yaml": job_text("api")})
    git("push", "--quiet", "origin", "HEAD", cwd=clone)
    world.applied = world.push("one", files={"a.yaml": job_text("web", "2")})
    assert world.apply() == world.applied
    world.look()
    assert world.states == "followed behind"
    assert read_ref(world.emergency, "refs/heads/main") == stray
    assert f"{stray[:8]} was pushed there and is not in what is applied" in world.remotes[1].error


def test_a_packed_repository_is_read(world: World) -> None:
    applied = world.push("one", files={"a.yaml": job_text("web")})
    world.follow("one")
    world.apply()
    git("gc", "--quiet", cwd=world.emergency)
    assert read_ref(world.emergency, "refs/heads/main") == applied
    second = world.push("one", files={"a.yaml": job_text("web", "2")})
    assert world.apply() == second
    assert git("rev-parse", "HEAD", cwd=world.emergency) == second


def test_nothing_is_kept_of_a_commit_that_never_moves(world: World) -> None:
    applied = world.push("one", files={"a.yaml": job_text("web")})
    world.follow("one", ref=applied)
    assert world.apply() == applied
    assert not world.emergency.exists()
    assert world.states == "followed"


@pytest.mark.parametrize(
    ("ref", "branch"),
    [
        ("main", "main"),
        ("refs/heads/prod", "prod"),
        ("team/prod", "team/prod"),
        ("refs/tags/v1", "main"),
        ("HEAD", "main"),
        ("a" * 40, ""),
    ],
)
def test_the_branch_to_push_to(ref: str, branch: str) -> None:
    assert emergency_branch(ref) == branch


def test_another_branch_is_followed_and_kept(world: World) -> None:
    world.push("one", files={"a.yaml": job_text("web")})
    world.work.git("push", "--quiet", str(world.host("one")), "HEAD:refs/heads/team/prod")
    world.follow("one", ref="team/prod")
    applied = world.apply()
    assert read_ref(world.emergency, "refs/heads/team/prod") == applied
    assert git("branch", "--show-current", cwd=world.clone_of_emergency()) == "team/prod"


def test_it_is_cloned_and_pushed_to_over_ssh(world: World, tmp_path: Path) -> None:
    """By the machine's own sshd, as the user the server runs as."""
    world.push("one", files={"a.yaml": job_text("web")})
    world.follow("one")
    world.apply()
    (tmp_path / "sshd").mkdir()
    with running_sshd(tmp_path / "sshd") as sshd:
        trusted = f"-o 'UserKnownHostsFile=\"{sshd.known_hosts}\"'"
        command = f"ssh -F /dev/null -i '{sshd.key}' -o IdentitiesOnly=yes {trusted}"
        clone = tmp_path / "clone"
        git(
            "-c",
            f"core.sshCommand={command}",
            "clone",
            "--quiet",
            sshd.url(world.emergency),
            clone,
            cwd=tmp_path,
        )
        pushed = world.commit_in(clone, {"b.yaml": job_text("api")})
        git("-c", f"core.sshCommand={command}", "push", "--quiet", "origin", "HEAD", cwd=clone)
    assert world.apply() == pushed
