"""A control plane that follows a folder, and agents beside it, each a process that can be killed and started again."""

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from tests.e2e.cluster import Api, Json, Process, Specs, trueup

NODE_TIMEOUT = "2s"


def free_address() -> str:
    """A loopback address at which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


class Plant:
    """`trueup server --specs` and `trueup agent` processes, all in a folder of its own."""

    def __init__(self, folder: Path, *, extra_environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.specs = Specs(folder / "specs")
        self.agents: dict[str, Process] = {}
        self._environment = extra_environment
        self._options: dict[str, Sequence[str]] = {}
        self._server: Process | None = None
        self.api = Api(lambda: self.server.url, self.output)

    @property
    def server(self) -> Process:
        assert self._server is not None
        return self._server

    def start(self, *nodes: str) -> None:
        """Starts the control plane and plain agents of these names, and returns when all have joined."""
        self.start_server()
        for name in nodes:
            self.start_agent(name)
        self.until_ready(*nodes)

    def start_server(self) -> None:
        """Starts it: the first time anywhere, then where the agents look for it."""
        # Not port 0: a socket that was not bound to a port by name holds it for a minute after a kill.
        bind = free_address() if self._server is None else self._server.url.removeprefix("http://")
        self._server = Process(
            *("server", "--data", "server", "--specs", "specs", "--bind", bind),
            *("--removal-settle", "300ms", "--node-timeout", NODE_TIMEOUT),
            cwd=self.folder,
        )

    def start_agent(self, name: str, *options: str, through: Sequence[str] = ()) -> None:
        """Starts an agent that may run processes; a later start of that name has the options of the first."""
        given = self._options.setdefault(name, options)
        policy = self.folder / "policy.yaml"
        if not policy.exists():
            policy.write_text(f"drivers: {{process: {{users: [root, {psutil.Process().username()}]}}}}\n")
        token = self.folder / "server" / "cluster-token"
        self.agents[name] = Process(
            *("agent", "--server", self.server.url, "--bind", "127.0.0.1:0", "--enable-process"),
            *("--name", name, "--data", name, "--token-file", str(token), "--config", str(policy), *given),
            cwd=self.folder,
            name=name,
            extra_environment=self._environment,
            through=through,
        )

    def until_ready(self, *nodes: str) -> None:
        self.api.until(lambda: all(self.node(name)["status"] == "ready" for name in nodes))

    def node(self, name: str) -> Json:
        found: Json = self.api.get(f"/nodes/{name}")
        return found

    def places(self, job: str) -> dict[str, str]:
        """The node of each wanted allocation of a job that runs, by name."""
        return {
            one["name"]: one["node"] for one in self.api.allocations(job) if one["client_status"] == "running"
        }

    def command(self, *arguments: str, expect: int | None = 0) -> str:
        """A command against this control plane; its standard output."""
        return trueup(*arguments, "--address", self.server.url, cwd=self.folder, expect=expect).stdout

    def output(self) -> str:
        """What all of it said so far."""
        held = [self._server] if self._server is not None else []
        return "\n".join(process.output() for process in (*held, *self.agents.values()))

    def end(self) -> None:
        """Ends all of it, tasks too."""
        for process in (*self.agents.values(), *([] if self._server is None else [self._server])):
            process.end()
        for name in self.agents:
            trueup(
                *("down", "--data", name, "--timeout", "20s"),
                cwd=self.folder,
                expect=None,
                extra_environment=self._environment,
            )
