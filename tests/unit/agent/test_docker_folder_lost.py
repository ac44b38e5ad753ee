"""An agent whose data folder is gone, and whose containers run: they are taken up as they are, output and all."""

import shutil
from pathlib import Path

import pytest

from agent.drivers.docker_driver import DockerDriver
from agent.drivers.docker_engine import EngineAddress
from agent.drivers.docker_owner import Owner, agent_tag
from agent.drivers.docker_policy import DockerPolicy
from tests.builders import a_group, a_task
from tests.docker_engine import DockerEngine
from tests.unit.agent.node import a_running_node, until
from trueup.models.job import TaskConfig

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("a1")]


def test_containers_outlive_the_data_folder(tmp_path: Path, docker_engine: DockerEngine) -> None:
    address = EngineAddress(host=docker_engine.host)
    drivers = {
        "docker": lambda data, node_id, wake: DockerDriver(
            address,
            wake,
            owner=Owner(cluster="test", node=node_id, agent=agent_tag(data, "node-1", "a-machine")),
            policy=DockerPolicy(),
        )
    }
    says = "i=0; while true; do echo $i; i=$((i+1)); sleep 0.1; done"
    config = TaskConfig(image=docker_engine.image, args=("sh", "-c", says), network_mode="none")
    group = a_group(tasks=(a_task(driver="docker", config=config),))
    with a_running_node(tmp_path / "agent", drivers) as node:
        node.push(group)
        until(lambda: node.agent and node.agent.runner.allocations())
        until(lambda: node.held().client_status == "running")
        before = node.held().tasks["server"]
        assert node.agent is not None
        node_id = node.agent.node_id
        node.end()
        shutil.rmtree(node.data)

        node.start()
        node.push(group)
        until(lambda: node.agent and node.agent.runner.allocations())
        until(lambda: node.held().client_status == "running")
        after = node.held().tasks["server"]

        assert node.agent.node_id != node_id
        assert (after.container_id, after.started_at) == (before.container_id, before.started_at)
        log = node.data / "allocations/a1/logs/server.stdout"
        until(lambda: log.exists() and log.read_text().startswith("0\n1\n"))
