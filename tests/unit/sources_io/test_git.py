"""A git ref as a source, over a local path with the real git."""

import hashlib
import io
import os
import shutil
import subprocess
import zlib
from datetime import timedelta
from pathlib import Path

import pytest

from tests.require import require
from tests.unit.sources_io.repository import ENVIRONMENT, ManualClock, Repo, follow, job_text
from trueup.models.desired import DesiredState
from trueup.models.source_error import SourceUnavailable
from trueup.sources.git import GitSettings, GitTree
from trueup.sources.git_command import GitFailed
from trueup.sources.git_mirror import BlobReader
from trueup.sources.snapshot import MAX_FILE_BYTES, FileKey, Snapshot
from trueup.sources.spec_source import TreeSpecSource


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def source(repo: Repo, data: Path, clock: ManualClock) -> TreeSpecSource:
    return follow(repo.path, data, clock)


def read_now(source: TreeSpecSource, applied: DesiredState | None = None) -> DesiredState:
    """As after a nudge, or when the poll is due."""
    source.look_now()
    return source.read(None if applied is None else applied.commit.id)


def look(repo: Repo, data: Path, clock: ManualClock, *paths: str) -> Snapshot:
    settings = GitSettings(url=str(repo.path), paths=paths)
    tree = GitTree(settings, data, clock, environment=ENVIRONMENT)
    try:
        return tree.snapshot(None)
    finally:
        tree.close()


def authors(state: DesiredState) -> dict[str, str]:
    return {name: job.commit.author for name, job in state.jobs.items() if job.commit is not None}


def test_commit_is_the_revision(repo: Repo, source: TreeSpecSource) -> None:
    first = repo.commit({"a.yaml": job_text("web"), "README": "x"}, subject="one")
    second = repo.commit({"a.yaml": job_text("web", "2")}, subject="two: ü", author="Bob")
    state = source.read(None)
    commit = state.commit
    assert (commit.id, commit.parent, commit.author, commit.author_email, commit.subject) == (
        second,
        first,
        "Bob",
        "bob@example.org",
        "two: ü",
    )
    assert commit.committed_at is not None
    assert commit.committed_at.tzinfo is not None
    assert state.errors == ()
    assert source.status.kind == "git"
    assert source.status.url == str(repo.path)
    assert source.status.error == ""


def test_polls_only_when_due(repo: Repo, source: TreeSpecSource, clock: ManualClock) -> None:
    """Between polls the same state comes back; a nudge makes the next one due."""
    repo.commit({"a.yaml": job_text("web")})
    first = source.read(None)
    assert source.next_look == clock.now() + timedelta(seconds=15)
    repo.commit({"a.yaml": job_text("web", "2")})
    clock.seconds += 14
    assert source.read(first.commit.id) is first
    clock.seconds += 1
    second = source.read(first.commit.id)
    assert second.commit.id != first.commit.id
    third = repo.commit({"a.yaml": job_text("web", "3")})
    assert read_now(source, second).commit.id == third


def test_unchanged_ref_reads_nothing(
    repo: Repo, source: TreeSpecSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.commit({"a.yaml": job_text("web")})
    first = source.read(None)
    monkeypatch.setattr("trueup.sources.git.files_of", None)
    assert read_now(source, first) is first


def test_revert_is_a_revision_of_its_own(repo: Repo, source: TreeSpecSource) -> None:
    repo.commit({"a.yaml": job_text("web")})
    first = read_now(source)
    repo.commit({"a.yaml": job_text("web", "2")})
    second = read_now(source, first)
    repo.git("revert", "--no-edit", "HEAD", author="Cid")
    third = read_now(source, second)
    assert third.jobs["web"].job == first.jobs["web"].job
    assert authors(third) == {"web": "Cid"}


def test_commits_between_two_looks_keep_their_authors(repo: Repo, source: TreeSpecSource) -> None:
    repo.commit({name: job_text(name[:-5]) for name in ("a.yaml", "b.yaml", "c.yaml")})
    first = read_now(source)
    repo.commit({"a.yaml": job_text("a", "2")}, author="Bob")
    repo.commit({"b.yaml": job_text("b", "2")}, author="Cid")
    repo.commit({"a.yaml": job_text("a", "3")}, author="Dan")
    repo.commit({"README": "x"}, author="Eve")
    state = read_now(source, first)
    assert state.commit.author == "Eve"
    assert authors(state) == {"a": "Dan", "b": "Cid"}


def test_merge_blames_who_changed_it(repo: Repo, source: TreeSpecSource) -> None:
    """Whoever merges is blamed for what is in neither parent only."""
    repo.commit({"a.yaml": job_text("a"), "b.yaml": job_text("b"), "c.yaml": job_text("c")})
    first = read_now(source)
    repo.git("checkout", "-q", "-b", "side")
    repo.commit({"a.yaml": job_text("a", "2")}, author="Bob")
    repo.git("checkout", "-q", "main")
    repo.commit({"b.yaml": job_text("b", "2")}, author="Cid")
    repo.git("merge", "-q", "--no-ff", "--no-commit", "side", author="Max")
    repo.commit({"c.yaml": job_text("c", "merged")}, subject="merge", author="Max")
    assert authors(read_now(source, first)) == {"a": "Bob", "b": "Cid", "c": "Max"}


def test_first_look_finds_the_authors_of_all(repo: Repo, source: TreeSpecSource) -> None:
    repo.commit({"a.yaml": job_text("a")}, author="Bob")
    repo.commit({"b.yaml": job_text("b")}, author="Cid")
    assert authors(read_now(source)) == {"a": "Bob", "b": "Cid"}


def test_force_push_is_followed(repo: Repo, source: TreeSpecSource) -> None:
    """Also the authors are those of the new history, though the applied commit is none of it."""
    repo.commit({"a.yaml": job_text("a"), "b.yaml": job_text("b")})
    base = repo.git("rev-parse", "HEAD")
    repo.commit({"a.yaml": job_text("a", "lost")}, author="Bob")
    applied = read_now(source)
    repo.git("reset", "--hard", "-q", base)
    repo.commit({"b.yaml": job_text("b", "2")}, author="Cid")
    new = repo.commit({"c.yaml": job_text("c")}, author="Dan")
    state = read_now(source, applied)
    assert state.commit.id == new
    assert authors(state) == {"b": "Cid", "c": "Dan"}


def test_applied_commit_is_unknown_here(repo: Repo, source: TreeSpecSource) -> None:
    """A new data folder, and a history since rewritten: who touched a file last is told all the same."""
    repo.commit({"a.yaml": job_text("a")}, author="Bob")
    repo.commit({"b.yaml": job_text("b")}, author="Cid")
    state = source.read("0123456789012345678901234567890123456789")  # type: ignore[arg-type]
    assert authors(state) == {"a": "Bob", "b": "Cid"}


def test_branch_before_tag_and_annotated_tag(repo: Repo, data: Path, clock: ManualClock) -> None:
    tagged = repo.commit({"a.yaml": job_text("a")})
    repo.git("tag", "-a", "-m", "first", "v1")
    repo.git("tag", "twice")
    newer = repo.commit({"a.yaml": job_text("a", "2")})
    repo.git("branch", "twice")
    for ref, commit in {
        "v1": tagged,
        "refs/tags/v1": tagged,
        "refs/tags/twice": tagged,
        "twice": newer,
        "HEAD": newer,
        tagged: tagged,
        tagged[:10]: tagged,
        newer: newer,
    }.items():
        assert follow(repo.path, data / ref[:12], clock, ref=ref).read(None).commit.id == commit, ref


def test_tag_that_is_moved(repo: Repo, data: Path, clock: ManualClock) -> None:
    repo.commit({"a.yaml": job_text("a")})
    repo.git("tag", "live")
    source = follow(repo.path, data, clock, ref="live")
    first = source.read(None)
    moved = repo.commit({"a.yaml": job_text("a", "2")})
    repo.git("tag", "--force", "live")
    assert read_now(source, first).commit.id == moved


def test_commit_id_asks_the_remote_once(repo: Repo, data: Path, clock: ManualClock) -> None:
    commit = repo.commit({"a.yaml": job_text("a")})
    source = follow(repo.path, data, clock, ref=commit)
    first = source.read(None)
    repo.path.rename(repo.path.with_name("away"))
    assert read_now(source, first) is first
    assert source.status.error == ""


@pytest.mark.parametrize("ref", ["absent", "refs/heads/absent", "abcdef0", "0" * 40])
def test_ref_that_is_not_there(repo: Repo, data: Path, clock: ManualClock, ref: str) -> None:
    repo.commit({"a.yaml": job_text("a")})
    with pytest.raises(SourceUnavailable, match="has no"):
        follow(repo.path, data, clock, ref=ref).read(None)


def test_tag_of_something_else(repo: Repo, data: Path, clock: ManualClock) -> None:
    """It is no fault of the mirror, which stays."""
    repo.commit({"a.yaml": job_text("a")})
    repo.git("tag", "tree", "HEAD^{tree}")
    repo.git("tag", "file", "HEAD:a.yaml")
    for ref in ("tree", "file"):
        source = follow(repo.path, data, clock, ref=ref)
        for _ in range(3):
            with pytest.raises(SourceUnavailable, match="the ref stands for no commit"):
                read_now(source)
            assert list(mirror_of(data).glob("objects/pack/*.pack"))


def test_branch_is_deleted_and_comes_back(repo: Repo, data: Path, clock: ManualClock) -> None:
    repo.commit({"a.yaml": job_text("a")})
    repo.git("branch", "live")
    source = follow(repo.path, data, clock, ref="live")
    first = source.read(None)
    repo.git("branch", "-D", "live")
    with pytest.raises(SourceUnavailable, match="no longer has"):
        read_now(source, first)
    with pytest.raises(SourceUnavailable, match="no branch or tag 'live'"):
        read_now(source, first)
    repo.git("branch", "live")
    assert read_now(source, first) is first


def test_folders_of_the_repository(repo: Repo, data: Path, clock: ManualClock) -> None:
    """Paths are relative to their root, and a commit that touches none of them is a revision all the same."""
    repo.commit({"eu/a.yaml": job_text("a"), "us/a.yaml": job_text("b"), "c.yaml": job_text("c")})
    found = look(repo, data, clock, "eu", "us/")
    assert set(found.files) == {FileKey(0, "a.yaml"), FileKey(1, "a.yaml")}
    source = follow(repo.path, data, clock, paths=("eu", "us"))
    first = source.read(None)
    assert sorted(first.jobs) == ["a", "b"]
    repo.commit({"us/a.yaml": job_text("b", "2")}, author="Bob")
    assert authors(read_now(source, first)) == {"b": "Bob"}


def test_folder_that_is_gone_is_an_emptied_tree(repo: Repo, data: Path, clock: ManualClock) -> None:
    """Git keeps no empty folders. A file in its place is an error."""
    repo.commit({"specs/a.yaml": job_text("a"), "b": "x"})
    source = follow(repo.path, data, clock, paths=("specs",))
    first = source.read(None)
    repo.commit({"specs/a.yaml": None})
    second = read_now(source, first)
    assert second.jobs == {}
    (repo.path / "specs").rmdir()
    repo.commit({"specs": "a file"})
    with pytest.raises(SourceUnavailable, match="specs is no folder"):
        read_now(source, second)


def test_faults_of_single_files(repo: Repo, data: Path, clock: ManualClock) -> None:
    repo.commit({"good.yaml": "x: 1", ".hidden.yaml": "x: 1", "large.yaml": "#" * (MAX_FILE_BYTES + 1)})
    for name, target in {
        "leaving.yaml": "../x.yaml",
        "absolute.yaml": "/etc/passwd",
        "nowhere.yaml": "gone.yaml",
        "round.yaml": "round.yaml",
        "through.yaml": ".hidden.yaml",
        "loop": ".",
        "README.md": "../README.md",
    }.items():
        (repo.path / name).symlink_to(target)
    repo.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},module")
    repo.git("add", "--ignore-removal", ".")
    repo.git("commit", "-qm", "faults")
    found = look(repo, data, clock)
    assert {key.path for key in found.files} == {"good.yaml", "through.yaml"}
    assert {error.file: error.message for error in found.errors} == {
        "large.yaml": "is larger than 1 MiB",
        "leaving.yaml": "is a link that leaves the spec tree",
        "absolute.yaml": "is a link that leaves the spec tree",
        "nowhere.yaml": "is a link to nothing",
        "round.yaml": "is a link that leads to itself",
        "loop": "is a link to a folder that it lies in",
        "module": "is a submodule, which is not followed",
    }
    assert {key.path for key in found.unusable} == {"README.md"}


def test_links_inside_the_tree(repo: Repo, data: Path, clock: ManualClock) -> None:
    """What a linked file touches, the link touches."""
    repo.commit({".rev/a.yaml": job_text("a"), ".rev/in/b.yaml": job_text("b")})
    (repo.path / "a.yaml").symlink_to(".rev/a.yaml")
    (repo.path / "jobs").symlink_to(".rev/in")
    repo.commit({})
    source = follow(repo.path, data, clock)
    first = source.read(None)
    assert first.errors == ()
    assert sorted(first.jobs) == ["a", "b"]
    assert first.jobs["b"].place.file == "jobs/b.yaml"
    repo.commit({".rev/in/b.yaml": job_text("b", "2")}, author="Bob")
    assert authors(read_now(source, first)) == {"b": "Bob"}


def test_link_that_leaves_its_folder(repo: Repo, data: Path, clock: ManualClock) -> None:
    repo.commit({"specs/a.yaml": "x: 1", "other/b.yaml": "x: 1"})
    (repo.path / "specs/other").symlink_to("../other")
    repo.commit({})
    found = look(repo, data, clock, "specs")
    assert [str(error) for error in found.errors] == ["other: is a link that leaves the spec tree"]


def test_ignored_files(repo: Repo, data: Path, clock: ManualClock) -> None:
    repo.commit({"a.yaml": "x: 1", "b.yaml": "x: 1", "out/c.yaml": "x: 1", ".trueupignore": "b.yaml\nout/\n"})
    found = look(repo, data, clock)
    assert {key.path: file.document for key, file in found.files.items()} == {"a.yaml": True, "b.yaml": False}


def test_odd_names(repo: Repo, data: Path, clock: ManualClock) -> None:
    """Names with tabs, quotes and line breaks come as they are; what is no text is refused."""
    repo.commit(
        {"a\tb.yaml": "x: 1", 'q"u\n.yaml': "x: 1", "ü.yaml": "x: 1", os.fsdecode(b"\xe9.yaml"): "x: 1"}
    )
    found = look(repo, data, clock)
    assert {key.path for key in found.files} == {"a\tb.yaml", 'q"u\n.yaml', "ü.yaml"}
    assert [error.file for error in found.errors] == ["\\xe9.yaml"]
    assert {key.path for key in found.touched} == {key.path for key in found.files}


def test_dead_remote_changes_nothing(repo: Repo, source: TreeSpecSource, clock: ManualClock) -> None:
    """The age of the last success is kept; waits double, with jitter; one success resets them."""
    repo.commit({"a.yaml": job_text("a")})
    first = source.read(None)
    success_at = clock.now()
    away = repo.path.with_name("away")
    repo.path.rename(away)
    waits = []
    for _ in range(6):
        assert source.next_look is not None
        clock.seconds = (source.next_look - (success_at - timedelta(seconds=0))).total_seconds()
        with pytest.raises(SourceUnavailable, match="repo"):
            source.read(first.commit.id)
        assert source.status.last_success_at == success_at
        assert source.next_look is not None
        waits.append((source.next_look - clock.now()).total_seconds())
    for number, wait in enumerate(waits):
        full = min(15 * 2**number, 300)
        assert full / 2 <= wait <= full
    with pytest.raises(SourceUnavailable, match="repo"):
        source.read(first.commit.id)
    away.rename(repo.path)
    assert read_now(source, first) is first
    assert source.status.error == ""
    assert source.next_look == clock.now() + timedelta(seconds=15)


def test_remote_dead_at_the_start(tmp_path: Path, clock: ManualClock) -> None:
    source = follow(tmp_path / "nothing", tmp_path / "data", clock)
    with pytest.raises(SourceUnavailable, match="nothing"):
        source.read(None)
    assert source.status.last_success_at is None


def test_repository_without_a_commit(repo: Repo, source: TreeSpecSource) -> None:
    with pytest.raises(SourceUnavailable, match="no branch or tag 'main'"):
        source.read(None)


def mirror_of(data: Path) -> Path:
    (mirror,) = data.glob("git/*/mirror.git")
    return mirror


def test_mirror_survives_a_restart(
    repo: Repo, source: TreeSpecSource, data: Path, clock: ManualClock
) -> None:
    repo.commit({"a.yaml": job_text("a")})
    source.read(None)
    (mirror_of(data) / "refs/trueup/followed.lock").write_text("")
    newer = repo.commit({"a.yaml": job_text("a", "2")})
    assert follow(repo.path, data, clock).read(None).commit.id == newer


@pytest.mark.parametrize("damage", ["head", "objects", "pack"])
def test_broken_mirror_is_fetched_anew(
    repo: Repo, source: TreeSpecSource, data: Path, clock: ManualClock, damage: str
) -> None:
    """What fails twice while the remote answers is thrown away."""
    repo.commit({"a.yaml": job_text("a")})
    source.read(None)
    mirror = mirror_of(data)
    if damage == "head":
        (mirror / "HEAD").write_text("nonsense")
    elif damage == "objects":
        shutil.rmtree(mirror / "objects")
    else:
        (pack,) = mirror.glob("objects/pack/*.pack")
        pack.chmod(0o600)
        pack.write_bytes(pack.read_bytes()[:12] + bytes(pack.stat().st_size - 12))
    restarted = follow(repo.path, data, clock)
    failures = 0
    while True:
        try:
            state = read_now(restarted)
            break
        except SourceUnavailable:
            failures += 1
            assert failures <= 2
    assert sorted(state.jobs) == ["a"]
    assert failures == 2


def test_file_that_is_damaged_in_the_mirror_is_fetched_anew(
    repo: Repo, source: TreeSpecSource, data: Path, clock: ManualClock
) -> None:
    """That it can be seen by reading alone makes the waits no shorter."""
    repo.commit({"a.yaml": job_text("a"), "b.yaml": job_text("b")})
    source.read(None)
    mirror = mirror_of(data)
    for pack in list(mirror.glob("objects/pack/*.pack")):
        away = pack.rename(data / pack.name)
        for file in mirror.glob("objects/pack/*"):
            file.unlink()
        subprocess.run(
            ["git", f"--git-dir={mirror}", "unpack-objects", "-q"], input=away.read_bytes(), check=True
        )
    blob = repo.git("rev-parse", "HEAD:a.yaml")
    loose = mirror / "objects" / blob[:2] / blob[2:]
    content = zlib.decompress(loose.read_bytes())
    loose.chmod(0o600)
    loose.write_bytes(zlib.compress(content.replace(b"sleep", b"sheep")))
    restarted = follow(repo.path, data, clock)
    for wait in (15, 30):
        with pytest.raises(SourceUnavailable, match=rf"{blob} is damaged|corrupt|git ended"):
            restarted.read(None)
        assert restarted.next_look is not None
        assert timedelta(seconds=wait / 2) <= restarted.next_look - clock.now() <= timedelta(seconds=wait)
        clock.seconds += wait
    assert sorted(restarted.read(None).jobs) == ["a", "b"]
    assert restarted.next_look == clock.now() + timedelta(seconds=15)


def test_leftovers_of_a_killed_git_go(
    repo: Repo, source: TreeSpecSource, data: Path, clock: ManualClock
) -> None:
    repo.commit({"a.yaml": job_text("a")})
    source.read(None)
    mirror = mirror_of(data)
    (pack,) = mirror.glob("objects/pack/*.pack")
    lefts = [
        mirror / "config.lock",
        mirror / "packed-refs.lock",
        mirror / "packed-refs.new",
        mirror / "shallow.lock",
        mirror / "refs/trueup/followed.lock",
        mirror / "objects/tmp_objdir-incoming-x/pack/tmp_pack_1",
        mirror / "objects/pack/tmp_pack_x",
        mirror / "objects/pack/.tmp-1-pack-x.pack",
        mirror / "objects/ab/tmp_obj_x",
        pack.with_suffix(".keep"),
    ]
    for left in lefts:
        left.parent.mkdir(parents=True, exist_ok=True)
        left.write_text("")
    newer = repo.commit({"a.yaml": job_text("a", "2")})
    assert follow(repo.path, data, clock).read(None).commit.id == newer
    assert [left for left in lefts if left.exists()] == []


def test_tree_that_unfolds_without_end_is_refused(repo: Repo, data: Path, clock: ManualClock) -> None:
    """Ten folders that are each the same ten, ten deep: a few objects, ten thousand million files."""
    blob = repo.git("hash-object", "-w", "-t", "blob", "/dev/null")
    entry, kind = blob, "100644 blob"
    for _ in range(10):
        lines = "".join(f"{kind} {entry}\tf{number}.yaml\n" for number in range(10))
        made = subprocess.run(
            ["git", "mktree"], cwd=repo.path, input=lines.encode(), capture_output=True, check=True
        )
        entry, kind = made.stdout.decode().strip(), "040000 tree"
    repo.git("update-ref", "refs/heads/main", repo.git("commit-tree", "-m", "bomb", entry))
    with pytest.raises(SourceUnavailable, match="holds more than 20000 files"):
        follow(repo.path, data, clock).read(None)


def test_blob_is_checked_against_its_id() -> None:
    content = b"kind: Job\n"
    blob = hashlib.sha1(b"blob 10\0" + content, usedforsecurity=False).hexdigest()
    for answer, message in {
        f"{blob} blob 10\nkind: Bob\n\n": "damaged",
        f"{blob} blob 10\nkind": "damaged",
        f"{blob} missing\n": "lacks",
        "": "lacks",
        f"{blob} blob {MAX_FILE_BYTES + 1}\n": "larger",
    }.items():
        with pytest.raises(GitFailed, match=message):
            BlobReader(io.BytesIO(), io.BytesIO(answer.encode())).read(blob)
    answers = io.BytesIO(f"{blob} blob 10\n".encode() + content + b"\n")
    assert BlobReader(io.BytesIO(), answers).read(blob) == content


def test_mirror_stays_small(
    repo: Repo, source: TreeSpecSource, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each fetch leaves a pack; they are joined now and then."""
    monkeypatch.setattr("trueup.sources.git_mirror._PACK_AFTER", 4)
    state = None
    for number in range(9):
        repo.commit({"a.yaml": job_text("a", str(number))})
        state = read_now(source, state)
    assert len(list(mirror_of(data).glob("objects/pack/*.pack"))) <= 4


def test_local_settings_run_nothing(repo: Repo, data: Path, clock: ManualClock, tmp_path: Path) -> None:
    """Hooks, filters, helpers and commands that a repository's settings name are not obeyed."""
    canary = tmp_path / "canary"
    script = tmp_path / "evil"
    script.write_text(f"#!/bin/sh\ntouch {canary}\nexit 1\n")
    script.chmod(0o755)
    repo.commit({"a.yaml": job_text("a"), ".gitattributes": "*.yaml filter=evil diff=evil textconv=evil\n"})
    for name in (
        "core.fsmonitor", "core.sshCommand", "core.pager", "filter.evil.smudge", "filter.evil.clean",
        "diff.evil.textconv", "diff.external", "uploadpack.packObjectsHook", "core.alternateRefsCommand",
        "gpg.program", "credential.helper", "core.gitProxy", "core.askPass", "sequence.editor", "merge.evil.driver",
        "filter.evil.process", "remote.trueup.uploadpack", "remote.trueup.vcs", "alias.fetch", "gc.recentObjectsHook",
    ):  # fmt: skip
        repo.git("config", name, str(script))
    for hook in ("post-checkout", "reference-transaction", "pre-receive", "post-upload-pack"):
        path = repo.path / ".git/hooks" / hook
        path.parent.mkdir(exist_ok=True)
        shutil.copy(script, path)
    assert sorted(follow(repo.path, data, clock).read(None).jobs) == ["a"]
    assert not canary.exists()
    mirror = mirror_of(data)
    assert not list(mirror.glob("hooks/*"))
    assert not (mirror / "index").exists()


def test_settings_of_the_user_are_not_read(
    repo: Repo, data: Path, clock: ManualClock, tmp_path: Path
) -> None:
    """A rewritten address would fetch from elsewhere."""
    repo.commit({"a.yaml": job_text("a")})
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(f'[url "/nowhere"]\n\tinsteadOf = {repo.path}\n')
    tree = GitTree(
        GitSettings(url=str(repo.path)),
        data,
        clock,
        environment=ENVIRONMENT | {"HOME": str(home), "GIT_DIR": "/nowhere", "GIT_CONFIG_COUNT": "x"},
    )
    assert tree.snapshot(None).files


def test_token_does_not_show(repo: Repo, data: Path, clock: ManualClock, tmp_path: Path) -> None:
    """Not in arguments or environment, and in a file of ours alone."""
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    source = follow("https://127.0.0.1:1/x.git", data, clock, token_file=token)
    with pytest.raises(SourceUnavailable) as error:
        source.read(None)
    assert "s3cret" not in str(error.value)
    for path in data.rglob("*"):
        if path.is_file() and b"s3cret" in path.read_bytes():
            assert path.stat().st_mode & 0o077 == 0


def test_mirror_is_nobody_elses_to_read(repo: Repo, source: TreeSpecSource, data: Path) -> None:
    repo.commit({"a.yaml": job_text("a")})
    source.read(None)
    assert mirror_of(data).parent.stat().st_mode & 0o077 == 0


def test_closed_source_starts_nothing_more(repo: Repo, source: TreeSpecSource) -> None:
    repo.commit({"a.yaml": job_text("a")})
    source.close()
    with pytest.raises(SourceUnavailable, match="closed"):
        source.read(None)


def test_work_tree_is_not_needed(repo: Repo, data: Path, clock: ManualClock, tmp_path: Path) -> None:
    """A bare repository, and a linked work tree's path, are local repositories too."""
    commit = repo.commit({"a.yaml": job_text("a")})
    repo.git("clone", "-q", "--bare", ".", str(tmp_path / "bare.git"))
    repo.git("worktree", "add", "-q", "-b", "side", str(tmp_path / "linked"))
    assert follow(tmp_path / "bare.git", data / "1", clock).read(None).commit.id == commit
    assert follow(tmp_path / "linked", data / "2", clock, ref="side").read(None).commit.id == commit


def test_repository_of_the_longer_hash(data: Path, clock: ManualClock, tmp_path: Path) -> None:
    require("git")
    repo = Repo(tmp_path / "long", "--object-format=sha256")
    repo.commit({"a.yaml": job_text("a")})
    source = follow(repo.path, data, clock)
    first = source.read(None)
    assert len(first.commit.id) == 64
    newer = repo.commit({"a.yaml": job_text("a", "2")}, author="Bob")
    state = read_now(source, first)
    assert (state.commit.id, authors(state)) == (newer, {"a": "Bob"})
    assert follow(repo.path, data, clock).read(newer).commit.id == newer  # type: ignore[arg-type]
    assert follow(repo.path, data / "2", clock, ref=first.commit.id).read(None).commit.id == first.commit.id


def test_disk_that_is_nearly_full(
    repo: Repo, source: TreeSpecSource, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left is the store's. The mirror stays, for another one would need as much."""
    repo.commit({"a.yaml": job_text("a")})
    first = source.read(None)
    newer = repo.commit({"a.yaml": job_text("a", "2")})
    with monkeypatch.context() as patch:
        patch.setattr("trueup.sources.git_mirror._KEPT_FREE_BYTES", 1024**6)
        for _ in range(3):
            with pytest.raises(SourceUnavailable, match="are free on the disk of"):
                read_now(source, first)
        assert (
            repo.git(f"--git-dir={mirror_of(data)}", "rev-parse", "refs/trueup/followed") == first.commit.id
        )
    assert read_now(source, first).commit.id == newer


def test_shallow_repository(repo: Repo, data: Path, clock: ManualClock, tmp_path: Path) -> None:
    """As a build machine checks out: what history there is, is used."""
    repo.commit({"a.yaml": job_text("a")})
    repo.commit({"b.yaml": job_text("b")})
    commit = repo.commit({"a.yaml": job_text("a", "2")}, author="Bob")
    shallow = tmp_path / "shallow"
    repo.git("clone", "-q", "--depth", "1", repo.path.as_uri(), str(shallow))
    state = follow(shallow, data, clock).read(None)
    assert state.commit.id == commit
    assert authors(state) == {"a": "Bob", "b": "Bob"}


def test_restart_with_an_applied_revision(repo: Repo, data: Path, clock: ManualClock) -> None:
    """Commits while the control plane was away keep their authors, too."""
    repo.commit({"a.yaml": job_text("a"), "b.yaml": job_text("b")})
    first = follow(repo.path, data, clock).read(None)
    repo.commit({"a.yaml": job_text("a", "2")}, author="Bob")
    repo.commit({"c.yaml": job_text("c")}, author="Cid")
    assert authors(follow(repo.path, data, clock).read(first.commit.id)) == {"a": "Bob", "c": "Cid"}
