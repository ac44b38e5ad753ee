"""Questions to the repository a person works in."""

import subprocess
from pathlib import Path

import pytest

from cli.work_tree import clean_commit, commit_named, is_ancestor


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits of one file."""
    git(tmp_path, "init", "-q", "-b", "main")
    for number in (1, 2):
        (tmp_path / "a.yaml").write_text(f"{number}\n")
        git(tmp_path, "add", ".")
        git(tmp_path, "commit", "-q", "-m", f"change {number}")
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    command = [
        "git",
        "-C",
        str(folder),
        "-c",
        "user.name=Ann",
        "-c",
        "user.email=ann@example.org",
        *arguments,
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_names_and_ancestry(repository: Path) -> None:
    """A name is a commit or none; of what is unknown nobody can tell."""
    head, first = git(repository, "rev-parse", "HEAD"), git(repository, "rev-parse", "HEAD~1")
    assert commit_named("HEAD", repository) == commit_named("main", repository) == head
    assert commit_named(head[:8], repository) == head
    assert commit_named("nothing", repository) is None
    assert commit_named("--all", repository) is None
    assert is_ancestor(first, head, repository) is True
    assert is_ancestor(head, head, repository) is True
    assert is_ancestor(head, first, repository) is False
    assert is_ancestor("f" * 40, head, repository) is None


def test_a_clean_tree_is_its_commit(repository: Path) -> None:
    """With author and subject; a changed, new or ignored file makes it a tree of its own."""
    commit = clean_commit([repository])
    assert commit is not None
    assert (commit.id, commit.parent) == (
        git(repository, "rev-parse", "HEAD"),
        git(repository, "rev-parse", "HEAD~1"),
    )
    assert (commit.author, commit.author_email, commit.subject) == ("Ann", "ann@example.org", "change 2")
    (repository / "b.yaml").write_text("new\n")
    assert clean_commit([repository]) is None
    (repository / "b.yaml").unlink()
    (repository / "a.yaml").write_text("changed\n")
    assert clean_commit([repository]) is None


def test_an_ignored_file_among_the_specs_is_not_the_commits(repository: Path) -> None:
    """The directory is read as it lies there, so what git ignores is planned too."""
    (repository / ".git" / "info" / "exclude").write_text("local.yaml\n")
    (repository / "local.yaml").write_text("x\n")
    assert clean_commit([repository]) is None


def test_without_a_repository_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No error: the command line works without git, and without a git program."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit_named("HEAD", tmp_path) is None
    assert clean_commit([tmp_path]) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit_named("HEAD", tmp_path) is None
    assert is_ancestor("a" * 40, "b" * 40, tmp_path) is None
