"""A control plane that follows git, agents beside it, and the people who push to what it follows."""

import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from tests.e2e.cluster import Api, Process, trueup
from tests.unit.sources_io.repository import Repo

NODES = ("node-1", "node-2")


class Pushed:
    """A bare repository as a git host keeps it, and a clone in which people commit."""

    def __init__(self, folder: Path) -> None:
        self.work = Repo(folder / "work")
        self.bare = folder / "specs.git"
        self.work.git("init", "--quiet", "--bare", "--initial-branch=main", str(self.bare))
        self.work.git("remote", "add", "origin", str(self.bare))

    def commit(self, files: dict[str, str | None], subject: str = "change", author: str = "Ann") -> str:
        """Commits without pushing; the id."""
        return self.work.commit(files, subject, author)

    def push(self, *options: str) -> None:
        self.work.git("push", "--quiet", *options, "origin", "HEAD")

    def commit_and_push(
        self, files: dict[str, str | None], subject: str = "change", author: str = "Ann"
    ) -> str:
        commit = self.commit(files, subject, author)
        self.push()
        return commit


class GitCluster:
    """`trueup server --git` and a `trueup agent` process for each node, all in a folder of its own."""

    def __init__(self, folder: Path, *, nodes: Sequence[str] = NODES) -> None:
        self.folder = folder
        self._nodes = nodes
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port = probe.getsockname()[1]
        self._options: tuple[str, ...] = ()
        self._server: Process | None = None
        self._agents: list[Process] = []
        self.api = Api(lambda: self.server.url, lambda: self.server.output())  # noqa: PLW0108 - it runs only later

    @property
    def server(self) -> Process:
        assert self._server is not None
        return self._server

    def start(self, url: str | Path, *options: str) -> None:
        """Starts the control plane, then all agents, and returns when all are ready."""
        self._options = ("--git", str(url), *options)
        self.start_server()
        policy = self.folder / "policy.yaml"
        policy.write_text(f"drivers: {{process: {{users: [root, {psutil.Process().username()}]}}}}\n")
        token = self.folder / "server" / "cluster-token"
        for name in self._nodes:
            options = ("--name", name, "--data", name, "--token-file", str(token), "--config", str(policy))
            self._agents.append(
                Process(
                    *("agent", "--server", self.server.url, "--bind", "127.0.0.1:0", "--enable-process"),
                    *options,
                    cwd=self.folder,
                    name=name,
                )
            )
        self.api.until(lambda: self.api.status()["nodes"].get("ready") == len(self._nodes))

    def start_server(self) -> None:
        options = ("--data", "server", "--bind", f"127.0.0.1:{self._port}", *self._options)
        self._server = Process("server", *options, cwd=self.folder)

    def restart_server(self) -> None:
        """Ends it and starts it again, where the agents look for it."""
        assert self.server.terminate() == 0
        self.start_server()

    def command(self, *arguments: str | Path, cwd: Path | None = None, expect: int | None = 0) -> str:
        """A command against this control plane; its standard output."""
        done = trueup(*arguments, "--address", self.server.url, cwd=cwd or self.folder, expect=expect)
        return done.stdout

    def until_applied(self, revision: str) -> None:
        """Waits until that commit is what is applied, and nothing is left to plan."""

        def applied() -> bool:
            status = self.api.status()
            return bool(status["revision"] == revision and status["sync"] == "Synced")

        self.api.until(applied)

    def end(self) -> None:
        """Ends all of it side by side, tasks too."""

        def down(name: str) -> None:
            trueup("down", "--data", name, "--timeout", "20s", cwd=self.folder, expect=None)

        processes = [*self._agents, *([] if self._server is None else [self._server])]
        for process in processes:
            if process.popen.poll() is None:
                process.popen.terminate()
        with ThreadPoolExecutor() as side_by_side:
            list(side_by_side.map(down, self._nodes[: len(self._agents)]))
        for process in processes:
            process.end()
