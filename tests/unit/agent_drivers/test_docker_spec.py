"""From a launch to the engine's request, and what a container that has the name means for a start."""

from pathlib import Path
from typing import Any

import pytest

from agent.doors import DriverError
from agent.drivers.docker_container import Container, ContainerConfig, ContainerState, task_status
from agent.drivers.docker_owner import Owner, agent_tag
from agent.drivers.docker_spec import (
    Claim,
    claim,
    container_labels,
    container_of,
    create_request,
    handle_of,
    log_target_of,
)
from tests.unit.agent_drivers.docker_world import a_launch
from trueup.models.job import LogLimits, Resources
from trueup.models.units import Bytes, Millicores

FOLDER = Path("/var/lib/trueup/agent/allocations")
OWNER = Owner(cluster="cluster-1", node="node-1")
PUBLISHED = [("10.0.0.1", 20000, 80), ("10.0.0.2", 20000, 80), ("10.0.0.1", 20001, 9000)]


def a_container(*, labels: dict[str, str] | None = None, **state: Any) -> Container:
    """A container of `a_launch`, running unless *state* says else."""
    own = container_labels(a_launch(FOLDER), OWNER)
    return Container(
        id="id-1",
        name="/trueup-a-server",
        state=ContainerState(**{"status": "running", "running": True, **state}),
        config=ContainerConfig(labels=own | (labels or {})),
    )


def host_config(**fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = create_request(a_launch(FOLDER, **fields), OWNER)["HostConfig"]
    return found


def test_ports_are_published_on_their_addresses_as_the_container_has_them() -> None:
    request = create_request(a_launch(FOLDER, network_mode="", published=PUBLISHED), OWNER)

    assert request["ExposedPorts"] == {"80/tcp": {}, "9000/tcp": {}}
    assert request["HostConfig"]["PortBindings"] == {
        "80/tcp": [
            {"HostIp": "10.0.0.1", "HostPort": "20000"},
            {"HostIp": "10.0.0.2", "HostPort": "20000"},
        ],
        "9000/tcp": [{"HostIp": "10.0.0.1", "HostPort": "20001"}],
    }


@pytest.mark.parametrize("mode", ["host", "none", "task:proxy"])
def test_a_container_without_a_network_of_its_own_publishes_nothing(mode: str) -> None:
    assert host_config(network_mode=mode, published=PUBLISHED)["PortBindings"] == {}


@pytest.mark.parametrize(
    ("written", "engines"),
    [
        ("", "default"),
        ("bridge", "bridge"),
        ("host", "host"),
        ("task:proxy", f"container:trueup-{'a' * 32}-proxy"),
    ],
)
def test_the_network_is_the_engines_word_for_the_one_written(written: str, engines: str) -> None:
    assert host_config(network_mode=written)["NetworkMode"] == engines


@pytest.mark.parametrize(
    ("cpu_millicores", "memory_bytes", "limits"),
    [
        (250, 256 * 1024**2, {"CpuShares": 256, "Memory": 268435456, "MemorySwap": 268435456}),
        (1, 1, {"CpuShares": 2, "Memory": 6291456, "MemorySwap": 6291456}),
        (500_000, 0, {"CpuShares": 262144}),
        (0, 0, {}),
    ],
)
def test_resources_are_limits(cpu_millicores: int, memory_bytes: int, limits: dict[str, int]) -> None:
    resources = Resources(cpu_millicores=Millicores(cpu_millicores), memory_bytes=Bytes(memory_bytes))

    found = host_config(resources=resources)

    assert {
        name: value for name, value in found.items() if name in {"CpuShares", "Memory", "MemorySwap"}
    } == limits


def test_what_the_config_leaves_open_is_the_images() -> None:
    request = create_request(a_launch(FOLDER), OWNER)

    assert not {"Cmd", "Entrypoint", "WorkingDir", "Hostname"} & request.keys()
    assert "ShmSize" not in request["HostConfig"]
    assert request["HostConfig"]["PidsLimit"] == 4096
    assert request["HostConfig"]["Init"] is True


def test_an_empty_entrypoint_takes_the_images_away() -> None:
    assert create_request(a_launch(FOLDER, "echo", entrypoint=()), OWNER)["Entrypoint"] == []


def test_mounts_are_the_tasks_folder_the_volumes_and_the_configs() -> None:
    folder = f"{FOLDER}/{'a' * 32}/server"

    found = host_config(
        volumes=[("/srv/data", "/data", True)],
        mounts=(
            {"source": "/etc/ssl", "target": "/ssl", "read_only": True},
            {"type": "volume", "source": "cache", "target": "/cache"},
            {"type": "tmpfs", "target": "/scratch", "size": "1MiB"},
        ),
    )["Mounts"]

    assert found == [
        {"Type": "bind", "Source": folder, "Target": folder, "ReadOnly": False},
        {"Type": "bind", "Source": "/srv/data", "Target": "/data", "ReadOnly": True},
        {"Type": "bind", "Source": "/etc/ssl", "Target": "/ssl", "ReadOnly": True},
        {"Type": "volume", "Source": "cache", "Target": "/cache", "ReadOnly": False},
        {"Type": "tmpfs", "Target": "/scratch", "ReadOnly": False, "TmpfsOptions": {"SizeBytes": 1048576}},
    ]


def test_a_bind_without_a_source_is_refused() -> None:
    with pytest.raises(DriverError, match="the mount at /x has no source"):
        host_config(mounts=({"target": "/x"},))


def test_limits_of_a_process_are_one_number_or_two() -> None:
    found = host_config(ulimits={"nproc": 10, "nofile": {"soft": 100, "hard": 200}})["Ulimits"]

    assert found == [{"Name": "nofile", "Soft": 100, "Hard": 200}, {"Name": "nproc", "Soft": 10, "Hard": 10}]


def test_a_handle_and_the_place_of_the_logs_are_found_in_the_labels_alone() -> None:
    labels = container_labels(a_launch(FOLDER, attempt=3, logs=LogLimits(max_files=2)), OWNER)

    handle, target = handle_of("id-1", labels), log_target_of(labels)

    assert handle is not None
    assert (handle.allocation_id, handle.task, handle.attempt) == ("a" * 32, "server", 3)
    assert container_of(handle) == "id-1"
    assert target is not None
    assert (target.folder, target.max_files) == (f"{FOLDER}/{'a' * 32}/logs", 2)


@pytest.mark.parametrize("attempt", ["", "x", "-1", "²"])
def test_labels_that_do_not_say_which_task_make_no_handle(attempt: str) -> None:
    labels = container_labels(a_launch(FOLDER), OWNER) | {"trueup.attempt": attempt}

    assert handle_of("id-1", labels) is None


@pytest.mark.parametrize(
    ("labels", "state", "expected"),
    [
        ({}, {}, Claim.FOUND),
        ({}, {"running": False, "status": "exited"}, Claim.FOUND),
        ({"trueup.attempt": "2"}, {}, Claim.FOUND),
        ({}, {"running": False, "status": "created"}, Claim.START),
        ({}, {"running": False, "status": "created", "error": "no such program"}, Claim.REPLACE),
        ({"trueup.attempt": "0"}, {}, Claim.REPLACE),
        ({"trueup.attempt": ""}, {}, Claim.REPLACE),
        ({"trueup.digest": "digest-0"}, {}, Claim.REPLACE),
        ({"trueup.node": "node-2"}, {}, Claim.FOREIGN),
        ({"trueup.cluster": "cluster-2"}, {}, Claim.FOREIGN),
        ({"trueup.task": "other"}, {}, Claim.FOREIGN),
    ],
)
def test_what_a_start_does_about_the_container_that_has_its_name(
    labels: dict[str, str], state: dict[str, Any], expected: Claim
) -> None:
    assert claim(a_container(labels=labels, **state), a_launch(FOLDER), OWNER) is expected


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"pid": 7}, ("running", None, "")),
        ({"running": False, "status": "exited", "exit_code": 3}, ("exited", 3, "")),
        ({"running": False, "status": "dead", "exit_code": 1, "error": "x"}, ("exited", 1, "x")),
        ({"running": False, "status": "created"}, ("gone", None, "its container was made and not started")),
    ],
)
def test_the_state_of_a_container_is_that_of_its_task(
    state: dict[str, Any], expected: tuple[str, int | None, str]
) -> None:
    status = task_status(a_container(**state))

    assert (status.state, status.exit_code, status.error) == expected


def test_a_task_never_ends_before_it_starts() -> None:
    """As the engine has it of one that takes a few milliseconds."""
    started, finished = "2026-11-25T04:21:04.517979001Z", "2026-11-25T04:21:04.514582001Z"

    status = task_status(
        a_container(running=False, status="exited", started_at=started, finished_at=finished)
    )

    assert status.started_at is not None
    assert status.started_at == status.finished_at


def test_a_container_belongs_to_its_node_or_to_the_agent_that_lost_its_folder() -> None:
    mine = Owner(cluster="c", node="node-1", agent="tag-1")
    labels = mine.labels

    assert mine.owns(labels)
    assert Owner(cluster="c", node="a-new-id", agent="tag-1").owns(labels)
    assert Owner(cluster="c", node="node-1", agent="moved").owns(labels)
    assert mine.owns(Owner(cluster="c", node="node-1").labels), "made by an earlier release"
    assert not Owner(cluster="c", node="node-2", agent="tag-2").owns(labels)
    assert not Owner(cluster="c", node="node-2").owns(Owner(cluster="c", node="node-1").labels)
    assert not Owner(cluster="d", node="node-1", agent="tag-1").owns(labels)
    assert not mine.owns({})


def test_an_agents_tag_tells_machines_folders_and_names_apart() -> None:
    folder = Path("/var/lib/trueup/agent")
    told = {
        agent_tag(folder, "node-1", "m1"),
        agent_tag(folder, "node-1", "m2"),
        agent_tag(folder, "node-2", "m1"),
        agent_tag(Path("/srv/agent"), "node-1", "m1"),
    }

    assert len(told) == 4
    assert agent_tag(folder, "node-1", "m1") in told
