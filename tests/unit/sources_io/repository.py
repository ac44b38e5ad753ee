"""Spec folders and git repositories for tests, with the real git."""

import os
import subprocess
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from tests.builders import NOON
from trueup.sources.git import GitSettings
from trueup.sources.spec_source import TreeSpecSource, git_source

ENVIRONMENT = {"PATH": os.environ["PATH"]}


class ManualClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return 1000.0 + self.seconds


def job_text(name: str, argument: str = "1") -> str:
    """A valid job that sleeps."""
    return f'kind: Job\nname: {name}\ngroups: [{{tasks: [{{config: {{command: [sleep, "{argument}"]}}}}]}}]\n'


class Repo:
    """A repository with a work tree, driven as its authors would."""

    def __init__(self, path: Path, *options: str) -> None:
        self.path = path
        path.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main", *options)

    def git(self, *arguments: str, author: str = "Ann") -> str:
        """Runs git with a name of its own and nobody's configuration."""
        mail = f"{author.lower()}@example.org"
        environment = ENVIRONMENT | {
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": author,
            "GIT_AUTHOR_EMAIL": mail,
            "GIT_COMMITTER_NAME": author,
            "GIT_COMMITTER_EMAIL": mail,
        }
        done = subprocess.run(
            ["git", *arguments], cwd=self.path, env=environment, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def commit(self, files: dict[str, str | None], subject: str = "change", author: str = "Ann") -> str:
        """Writes files (None: removes them), commits, and returns the id."""
        for name, text in files.items():
            path = self.path / name
            if text is None:
                path.unlink()
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
        self.git("add", "--all", ".")
        self.git("commit", "--quiet", "--allow-empty", "-m", subject, author=author)
        return self.git("rev-parse", "HEAD")


def follow(repo: Path | str, data: Path, clock: ManualClock, **settings: object) -> TreeSpecSource:
    """A git source, its first look due."""
    return git_source(
        GitSettings(url=str(repo), **settings),  # type: ignore[arg-type] # named by the caller
        data,
        clock,
        environment=ENVIRONMENT,
    )


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Waits until *condition* holds; fails at the deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.005)
