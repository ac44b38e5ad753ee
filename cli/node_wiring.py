"""The node agent put together: real drivers, clock and network, its loops driven on threads."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from agent.age_key import AgeKeyUnusable
from agent.drivers.docker_driver import DockerDriver
from agent.drivers.docker_engine import engine_address
from agent.drivers.docker_owner import Owner, agent_tag
from agent.drivers.identity import read_machine_id
from agent.drivers.process import ProcessDriver
from agent.fingerprint import Reserve
from agent.folder_room import Bounds
from agent.node_agent import AgentSettings as NodeAgentSettings
from agent.node_agent import DriverFactory, NodeAgent
from cli.agent_settings import AgentSettings
from cli.failures import Failed
from cli.policy import NodePolicies, node_policies
from cli.system import RandomIds, SystemClock
from cli.threads import STOP_SECONDS, LoopThreads
from trueup.models.ids import NodeId
from trueup.serving import tls_files

LONGEST_PAUSE_SECONDS: Final = 2.0
"""Between steps that fail: less than the control plane's deadline, so that a fault of one does not cost the node."""


class Agent:
    """A node agent and the threads of its loops, from `start` to `stop`."""

    def __init__(
        self, settings: AgentSettings, *, cluster_token: Callable[[], str | None], is_up: bool
    ) -> None:
        """Opens the data folder and listens; FolderInUse, JournalUnusable, CannotServe, Failed."""
        self._policies = node_policies(
            settings.policy, enable_process=settings.enable_process, allow_root=is_up
        )
        self._threads = LoopThreads(SystemClock(), longest_pause_seconds=LONGEST_PAUSE_SECONDS)
        try:
            self.node = build_node_agent(
                _node_settings(settings, self._policies, cluster_token), self._policies
            )
        except AgeKeyUnusable as error:
            raise Failed(str(error)) from error
        self.node.connect({name: self._threads.add(name, loop) for name, loop in self.node.loops})

    @property
    def url(self) -> str:
        """Where it answers; empty if nowhere."""
        return "" if self.node.endpoint is None else self.node.endpoint.url

    @property
    def refuses_processes(self) -> bool:
        """Whether no job may run a program of this machine."""
        return not self._policies.process.enabled

    @property
    def refuses_root(self) -> bool:
        """Whether a program of a task without `user` does not start: the agent is root, and root was not listed."""
        policy = self._policies.process
        return policy.enabled and not policy.root and os.geteuid() == 0

    def start(self) -> None:
        """Takes up what runs, joins, and does as it is told from now on."""
        self._threads.start()

    def stop(self, *, stop_tasks_within: float | None = None) -> list[str]:
        """Ends the agent and returns what did not end in time.

        Tasks run on, unless *stop_tasks_within* says in how many seconds they are to end.
        """
        left = self._threads.stop(STOP_SECONDS)
        if stop_tasks_within is not None:
            left += self.node.stop_all(stop_tasks_within)
        self.node.close()
        return left


def build_node_agent(settings: NodeAgentSettings, policies: NodePolicies) -> NodeAgent:
    """The agent of a data folder, its endpoints served, no loop stepped yet."""
    address = engine_address(os.environ)
    drivers: dict[str, DriverFactory] = {
        "process": lambda data, _node_id, wake: ProcessDriver(data, wake, policy=policies.process),
        "docker": lambda data, node_id, wake: DockerDriver(
            address, wake, owner=_owner(data, node_id, settings.name), policy=policies.docker
        ),
    }
    return NodeAgent.build(settings, drivers, SystemClock(), RandomIds())


def _owner(data: Path, node_id: NodeId, name: str) -> Owner:
    return Owner(cluster="trueup", node=node_id, agent=agent_tag(data, name, read_machine_id()))


def _node_settings(
    settings: AgentSettings, policies: NodePolicies, cluster_token: Callable[[], str | None]
) -> NodeAgentSettings:
    return NodeAgentSettings(
        data=settings.data,
        servers=settings.servers,
        name=settings.name,
        region=settings.region,
        labels=settings.labels,
        cpu_cores=None if settings.cpu_millicores is None else settings.cpu_millicores / 1000,
        memory_bytes=settings.memory_bytes,
        reserve=Reserve(
            cpu_millicores=settings.reserve_cpu_millicores,
            memory_bytes=settings.reserve_memory_bytes,
            disk_bytes=settings.reserve_disk_bytes,
        ),
        bounds=Bounds(count=settings.gc_max_allocs, size_bytes=settings.gc_max_bytes),
        bind=settings.bind,
        advertise=settings.advertise,
        cluster_token=cluster_token,
        secrets=settings.secrets,
        age_key_file=settings.age_key_file,
        secret_policy=policies.secrets,
        volumes=policies.volumes,
        artifacts=policies.artifacts,
        tls=tls_files(settings.tls_cert, settings.tls_key),
        tls_ca=settings.tls_ca,
    )
