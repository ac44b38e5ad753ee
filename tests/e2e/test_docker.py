"""Containers on a real engine, from the commit to the last trace of them."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import docker
import pytest
import requests

from tests.docker_engine import DockerEngine, client
from tests.e2e.cluster import Json, eventually, names
from tests.e2e.plant import Plant

pytestmark = [pytest.mark.e2e, pytest.mark.docker, pytest.mark.xdist_group("docker")]

WEB = """
kind: Job
name: web
update: {{min_healthy_time: 200ms}}
groups:
  - count: 2
    ports: [{{name: http, to: 80}}]
    restart: {{delay: 100ms, attempts: 5}}
    tasks:
      - name: server
        config:
          image: {image}
          args:
            - /bin/sh
            - -c
            - mkdir -p /www; echo "$COLOUR $TRUEUP_ALLOC_NAME" > /www/index.html; echo "begun $COLOUR";
              exec httpd -f -p "$TRUEUP_PORT_http" -h /www
        env: {{COLOUR: {colour}}}
        resources: {{cpu: 0.25, memory: 48MiB}}
        checks: [{{type: http, port: http, path: /, interval: 500ms}}]
        kill_timeout: 1s
"""
SLEEP = """
kind: Job
name: sleeper
update: {min_healthy_time: 100ms}
groups:
  - tasks:
      - config: {command: [sleep, "3600"]}
        kill_timeout: 1s
"""


@pytest.fixture
def engine(docker_engine: DockerEngine) -> Iterator[docker.APIClient]:
    with closing(client(docker_engine.host)) as opened:
        yield opened


@pytest.fixture
def plant(docker_engine: DockerEngine, tmp_path: Path) -> Iterator[Plant]:
    made = Plant(tmp_path, extra_environment={"DOCKER_HOST": docker_engine.host})
    yield made
    made.end()


@pytest.fixture
def web(plant: Plant, docker_engine: DockerEngine) -> Plant:
    """Two containers of `web`, healthy."""
    plant.specs.write("web.yaml", WEB.format(image=docker_engine.image, colour="blue"))
    plant.start("node-1")
    containers(plant)
    return plant


def containers(plant: Plant) -> dict[str, str]:
    """The container of each of the two instances, by name, once both are healthy."""

    def found() -> dict[str, str] | None:
        held = plant.api.allocations("web")
        ids = {one["name"]: one["tasks"]["server"]["container_id"] for one in held if is_running(one)}
        healthy = plant.api.job("web")["health"] == "Healthy"
        return ids if healthy and len(held) == len(ids) == 2 and all(ids.values()) else None

    return plant.api.until(found, 60)


def is_running(allocation: Json) -> bool:
    return bool(allocation["client_status"] == "running")


def of_node(plant: Plant, engine: docker.APIClient) -> list[dict[str, Any]]:
    """All containers of this test's node, whatever their state: the engine is shared with other tests."""
    node = plant.node("node-1")["id"]
    return [one for one in engine.containers(all=True) if node in (one["Labels"] or {}).values()]


def test_a_service_of_containers_runs_answers_and_is_limited(
    web: Plant, engine: docker.APIClient, docker_engine: DockerEngine
) -> None:
    held = web.api.allocations("web")
    for one in held:
        answer = requests.get(f"http://127.0.0.1:{one['ports']['http']}/", timeout=10)
        assert answer.text == f"blue {one['name']}\n"
        inspected = engine.inspect_container(one["tasks"]["server"]["container_id"])
        assert inspected["Name"] == f"/trueup-{one['id']}-server"
        limits = inspected["HostConfig"]
        assert limits["Memory"] == 48 * 1024**2
        assert limits["RestartPolicy"]["Name"] in {"", "no"}
        assert limits["Init"] is True
        assert one["id"] in inspected["Config"]["Labels"].values()
        image = engine.inspect_image(docker_engine.image)["Id"]  # type: ignore[no-untyped-call]
        task = one["tasks"]["server"]
        assert (task["image"], task["image_id"]) == (docker_engine.image, image)
        assert f"{docker_engine.image}, id {image}" in web.command("explain", one["name"])
    assert "begun blue" in web.api.until(lambda: web.command("logs", "web.web[0]") or None)
    assert "docker" in web.node("node-1")["drivers"]


def test_a_changed_environment_rolls_and_a_removed_document_removes_all(
    web: Plant, engine: docker.APIClient, docker_engine: DockerEngine
) -> None:
    before = containers(web)
    web.specs.write("web.yaml", WEB.format(image=docker_engine.image, colour="red"))
    web.api.until(lambda: web.api.job("web")["version"] == 2)
    after = containers(web)
    assert names(after) == names(before)
    assert not set(after.values()) & set(before.values())
    for one in web.api.allocations("web"):
        answer = requests.get(f"http://127.0.0.1:{one['ports']['http']}/", timeout=10)
        assert answer.text == f"red {one['name']}\n"
    # With another job beside it, its removal is no emptied tree.
    web.specs.write("sleeper.yaml", SLEEP)
    web.api.until_running("sleeper", 1)
    web.specs.remove("web.yaml")
    eventually(lambda: not of_node(web, engine), 60, web.output)


def test_a_killed_container_is_restarted_by_policy(web: Plant, engine: docker.APIClient) -> None:
    before = containers(web)
    engine.kill(before["web.web[0]"])
    engine.remove_container(before["web.web[1]"], force=True)

    def mended() -> dict[str, str] | None:
        after = containers(web)
        return None if set(after.values()) & set(before.values()) else after

    web.api.until(mended, 60)
    held = web.api.allocations("web", wanted=False)
    assert len(held) == 2
    assert {one["tasks"]["server"]["restarts"] for one in held} == {1}


def test_containers_outlive_a_killed_agent_and_server(web: Plant, engine: docker.APIClient) -> None:
    before = containers(web)
    started = {one["name"]: one["tasks"]["server"]["started_at"] for one in web.api.allocations("web")}
    web.agents["node-1"].kill()
    web.server.kill()
    assert all(engine.inspect_container(one)["State"]["Running"] for one in before.values())
    web.start_server()
    web.start_agent("node-1")
    web.until_ready("node-1")
    assert containers(web) == before
    assert {
        one["name"]: one["tasks"]["server"]["started_at"] for one in web.api.allocations("web")
    } == started
    assert len(of_node(web, engine)) == 2


def test_without_an_engine_processes_run_and_containers_wait_with_a_reason(
    tmp_path: Path, docker_engine: DockerEngine
) -> None:
    """Once the engine is there, what waited is placed, and no process was touched."""
    socket = tmp_path / "docker.sock"
    plant = Plant(tmp_path, extra_environment={"DOCKER_HOST": f"unix://{socket}"})
    try:
        plant.specs.write("sleeper.yaml", SLEEP)
        plant.specs.write("web.yaml", WEB.format(image=docker_engine.image, colour="blue"))
        plant.start("node-1")
        before = plant.api.until_running("sleeper", 1)
        (unplaced,) = plant.api.until(lambda: plant.api.job("web")["unplaced"] or None)
        (reason,) = unplaced["reasons"]
        assert reason.startswith("driver docker is unhealthy: no Docker engine answers at")
        assert "driver docker is unhealthy" in plant.command("explain", "web")
        assert plant.output().count("driver does not say what runs") <= 1
        socket.symlink_to(docker_engine.host.removeprefix("unix://"))
        containers(plant)
        assert plant.api.running("sleeper") == before
    finally:
        plant.end()
