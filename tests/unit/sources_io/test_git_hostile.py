"""A repository that means ill, or is not what specs should be in: nothing of it runs, and each fault stays its own."""

import subprocess
from pathlib import Path

import pytest

from tests.unit.sources_io.repository import ENVIRONMENT, ManualClock, Repo, follow, job_text
from trueup.models.source_error import SourceUnavailable

_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 12\n".format("1" * 64)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def mirror_of(data: Path) -> Path:
    (mirror,) = data.glob("git/*/mirror.git")
    return mirror


def test_file_kept_in_lfs_is_an_error_on_that_file(repo: Repo, data: Path, clock: ManualClock) -> None:
    """Others go ahead; the filter that would fetch it is not asked."""
    repo.commit({"a.yaml": job_text("a"), ".gitattributes": "big.yaml filter=lfs diff=lfs merge=lfs -text\n"})
    repo.commit({"big.yaml": _POINTER})
    state = follow(repo.path, data, clock).read(None)
    assert sorted(state.jobs) == ["a"]
    assert [str(error) for error in state.errors] == [
        "big.yaml: is a pointer of git LFS; keep specs in git itself"
    ]


def test_submodule_is_not_followed(repo: Repo, data: Path, clock: ManualClock, tmp_path: Path) -> None:
    """Though its own repository is there and has a job."""
    repo.commit({"a.yaml": job_text("a")})
    add_module(repo, tmp_path / "module")
    repo.commit({})
    state = follow(repo.path, data, clock).read(None)
    assert sorted(state.jobs) == ["a"]
    assert [(error.file, error.message) for error in state.errors] == [
        ("module", "is a submodule, which is not followed")
    ]
    assert list(data.rglob("modules")) == []


def test_submodule_whose_settings_name_a_command(
    repo: Repo, data: Path, clock: ManualClock, tmp_path: Path
) -> None:
    """git does not even take the commit in; it is told why, and the last good one stays."""
    repo.commit({"a.yaml": job_text("a")})
    source = follow(repo.path, data, clock)
    good = source.read(None)
    add_module(repo, tmp_path / "module")
    repo.git("config", "-f", ".gitmodules", "submodule.module.update", f"!touch {tmp_path}/canary")
    repo.commit({})
    source.look_now()
    with pytest.raises(SourceUnavailable, match="disallowed submodule update setting"):
        source.read(good.commit.id)
    assert not (tmp_path / "canary").exists()


def add_module(repo: Repo, path: Path) -> None:
    module = Repo(path)
    module.commit({"m.yaml": job_text("m")})
    repo.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(module.path), "module")
    repo.git("config", "submodule.recurse", "true")
    repo.git("config", "fetch.recurseSubmodules", "true")


def test_objects_of_another_repository_are_copied_not_borrowed(
    repo: Repo, data: Path, clock: ManualClock, tmp_path: Path
) -> None:
    """The mirror needs neither of them afterwards, and reads no other folder of this machine."""
    repo.commit({"a.yaml": job_text("a")})
    borrower = Repo(tmp_path / "borrower")
    alternates = borrower.path / ".git/objects/info/alternates"
    alternates.write_text(f"{repo.path}/.git/objects\n../objects\n/nowhere\n")
    borrower.git("update-ref", "refs/heads/main", repo.git("rev-parse", "HEAD"))
    source = follow(borrower.path, data, clock)
    assert sorted(source.read(None).jobs) == ["a"]
    assert not (mirror_of(data) / "objects/info/alternates").exists()
    repo.path.rename(tmp_path / "away")
    listing = subprocess.run(
        ["git", f"--git-dir={mirror_of(data)}", "fsck", "--full", "--strict"],
        env=ENVIRONMENT,
        capture_output=True,
        check=False,
    )
    assert listing.returncode == 0, listing.stderr


def test_words_of_a_commit_are_one_short_line_without_control_characters(
    repo: Repo, data: Path, clock: ManualClock
) -> None:
    """They are shown on terminals and pages."""
    repo.commit({"a.yaml": job_text("a")})
    tree = repo.git("rev-parse", "HEAD^{tree}")
    words = (
        f"tree {tree}\nauthor \x1b[31mEve\x07 <e\x9b@x> 1 +0000\n"
        f"committer C <c@x> 1 +0000\n\n\u202eab\x1b]0;t\x07{'x' * 5000}\n"
    )
    made = subprocess.run(
        ["git", "hash-object", "-t", "commit", "-w", "--stdin"],
        cwd=repo.path, env=ENVIRONMENT, input=words.encode(), capture_output=True, check=True,
    )  # fmt: skip
    repo.git("update-ref", "refs/heads/main", made.stdout.decode().strip())
    commit = follow(repo.path, data, clock).read(None).commit
    assert commit.author == " [31mEve "
    assert commit.author_email == "e @x"
    assert commit.subject.startswith(" ab ]0;t x")
    assert len(commit.subject) == 500
