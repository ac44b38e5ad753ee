"""What a container is started with, and that it is started once."""

import http.client
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.doors import DriverError
from agent.drivers.docker_spec import container_name, create_request
from tests.unit.agent_drivers.docker_world import IMAGE, DockerWorld, MakeDockerWorld
from tests.unit.agent_drivers.process_world import wait_until
from trueup.models.job import Resources
from trueup.models.units import Bytes, Duration, Millicores

pytestmark = [pytest.mark.docker, pytest.mark.e2e]

_SECONDS = Duration(seconds=10)
_CAPABILITIES = {"CHOWN": 0, "NET_ADMIN": 12, "NET_RAW": 13, "SYS_ADMIN": 21}


def test_a_container_runs_is_labelled_and_is_seen_with_its_process(docker_world: DockerWorld) -> None:
    handle = docker_world.start("sleep", "100")

    status = docker_world.driver.status(handle)
    labels = docker_world.inspect(handle)["Config"]["Labels"]

    assert status.state == "running"
    assert status.pid is not None
    assert status.started_at is not None
    assert (handle.driver, handle.task, handle.attempt) == ("docker", "server", 1)
    assert {
        name.removeprefix("trueup."): value
        for name, value in labels.items()
        if name not in {"trueup.logs", "trueup.origin"}
    } == {
        "cluster": docker_world.owner.cluster,
        "node": "node-1",
        "alloc": handle.allocation_id,
        "name": "web.app[0]",
        "job": "web",
        "group": "app",
        "task": "server",
        "attempt": "1",
        "digest": "digest-1",
    }


def test_the_image_it_was_started_from_is_known_by_reference_and_id(docker_world: DockerWorld) -> None:
    """Also once it has ended."""
    running = docker_world.start("sleep", "100")
    ended = docker_world.start("true", task="once")
    docker_world.ended(ended)
    image = docker_world.engine.inspect_image(IMAGE)["Id"]  # type: ignore[no-untyped-call]

    for handle in (running, ended):
        status = docker_world.driver.status(handle)
        assert (status.image, status.image_id) == (IMAGE, image)
    assert image.startswith("sha256:")


def test_a_repeated_start_finds_the_one_that_runs(docker_world: DockerWorld) -> None:
    first = docker_world.start("sleep", "100")
    docker_world.restart()

    again = docker_world.start("sleep", "100")

    assert again == first
    assert len(docker_world.containers()) == 1


def test_starts_of_one_task_at_once_make_one_container(docker_world: DockerWorld) -> None:
    """An agent that was taken for dead and its successor."""
    launch = docker_world.launch("sh", "-c", "echo once; sleep 100")
    with ThreadPoolExecutor(4) as threads:
        handles = list(threads.map(docker_world.driver.start, [launch] * 4))

    assert len(set(handles)) == 1
    assert len(docker_world.containers()) == 1
    wait_until(lambda: docker_world.output(handles[0]) == "once\n")


def test_a_repeated_start_finds_the_one_that_ended(docker_world: DockerWorld) -> None:
    """A start whose answer was lost is not made twice, also when the task was quick."""
    first = docker_world.start("true")
    docker_world.ended(first)

    again = docker_world.start("true")

    assert again == first
    assert docker_world.driver.status(again).state == "exited"


def test_a_repeat_with_pull_always_asks_no_registry_for_what_runs(docker_world: DockerWorld) -> None:
    first = docker_world.start("sleep", "100")

    again = docker_world.start("sleep", "100", pull="always")

    assert again == first


def test_a_container_that_was_made_and_not_started_is_started(docker_world: DockerWorld) -> None:
    """The agent died between the two calls."""
    launch = docker_world.launch("sleep", "100")
    request = docker_world.inspect(docker_world.driver.start(launch))
    docker_world.engine.remove_container(request["Id"], force=True)
    body = {**request["Config"], "HostConfig": request["HostConfig"]}
    name = container_name(launch.allocation_id, launch.task)
    made = docker_world.create(body, name)
    [found] = docker_world.driver.recover()
    assert docker_world.driver.status(found).state == "gone"

    again = docker_world.driver.start(launch)

    assert (docker_world.driver.status(again).state, docker_world.inspect(again)["Id"]) == ("running", made)


def test_the_next_attempt_removes_what_the_last_one_left(docker_world: DockerWorld) -> None:
    first = docker_world.start("sh", "-c", "echo first")
    docker_world.ended(first)

    second = docker_world.start("sh", "-c", "echo second; sleep 100", attempt=2)

    wait_until(lambda: docker_world.output(second) == "first\nsecond\n")
    assert docker_world.driver.status(second).state == "running"
    assert docker_world.driver.status(first).state == "gone"
    assert len(docker_world.containers()) == 1


def test_the_next_attempt_ends_one_that_still_runs(docker_world: DockerWorld) -> None:
    """Its end was never heard of: two of one task never run."""
    first = docker_world.start("sh", "-c", "echo first; sleep 100")
    wait_until(lambda: docker_world.output(first) == "first\n")

    second = docker_world.start("sleep", "100", attempt=2)

    assert [row["State"] for row in docker_world.containers()] == ["running"]
    assert docker_world.driver.status(second).state == "running"


def test_a_late_start_of_an_earlier_attempt_finds_the_later_one(docker_world: DockerWorld) -> None:
    second = docker_world.start("sleep", "100", attempt=2)

    assert docker_world.start("sleep", "100", attempt=1) == second


def test_a_foreign_container_of_the_name_is_left_alone(docker_world: DockerWorld) -> None:
    launch = docker_world.launch("sleep", "100")
    name = container_name(launch.allocation_id, launch.task)
    foreign = docker_world.create({"Image": IMAGE}, name)
    try:
        with pytest.raises(DriverError, match=f"named {name}: rename or remove it") as failed:
            docker_world.driver.start(launch)
        assert not failed.value.temporary
        assert docker_world.engine.inspect_container(foreign)["State"]["Status"] == "created"
    finally:
        docker_world.engine.remove_container(foreign)


def test_the_environment_is_the_images_and_what_the_task_has(
    docker_world: DockerWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the agent's."""
    monkeypatch.setenv("AGENTS_OWN", "secret")

    said = docker_world.run("env", environment={"MODE": "prod", "EMPTY": "", "WITH": "a=b c"})

    variables = dict(line.split("=", 1) for line in said.splitlines())
    assert variables.keys() - {"HOSTNAME", "HOME"} == {"PATH", "MODE", "EMPTY", "WITH"}
    assert (variables["PATH"], variables["WITH"]) == ("/bin", "a=b c")


def test_the_entrypoint_of_the_task_takes_the_place_of_the_images(docker_world: DockerWorld) -> None:
    assert docker_world.run("world", entrypoint=("echo", "hello")) == "hello world\n"


def test_a_task_runs_as_its_user(docker_world: DockerWorld) -> None:
    assert docker_world.run("id", "-u", user="nobody") == "65534\n"


def test_the_tasks_folder_and_its_volumes_are_mounted(docker_world: DockerWorld, tmp_path: Path) -> None:
    """The folder under the path it has on the node, so that TASK_DIR is true inside as well."""
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "data").write_text("kept")
    folder = docker_world.launch().task_dir
    folder.mkdir(parents=True)
    (folder / "app.conf").write_text("written\n")
    script = f"cat {folder}/app.conf /data/data; touch /data/x 2>/dev/null || echo ' and read-only'"

    said = docker_world.run("sh", "-c", script, volumes=[(str(volume), "/data", True)])

    assert said == "written\nkept and read-only\n"


def test_settings_of_the_config_reach_the_container(docker_world: DockerWorld) -> None:
    handle = docker_world.start(
        "sleep",
        "100",
        read_only=True,
        pids_limit=50,
        shm_size=Bytes(1024**2),
        cap_drop=("NET_RAW",),
        ulimits={"nofile": {"soft": 100, "hard": 200}, "nproc": 60},
        mounts=({"type": "tmpfs", "target": "/scratch", "size": "1MiB"},),
        resources=Resources(cpu_millicores=Millicores(500), memory_bytes=Bytes(64 * 1024**2)),
    )

    host = docker_world.inspect(handle)["HostConfig"]
    code, said = docker_world.driver.execute(
        handle, ["sh", "-c", "grep -c /scratch /proc/mounts; touch /x 2>&1"], _SECONDS
    )

    assert (host["Memory"], host["MemorySwap"], host["CpuShares"]) == (67108864, 67108864, 512)
    assert (host["PidsLimit"], host["ShmSize"], host["CapDrop"]) == (50, 1048576, ["NET_RAW"])
    assert {limit["Name"]: (limit["Soft"], limit["Hard"]) for limit in host["Ulimits"]} == {
        "nofile": (100, 200),
        "nproc": (60, 60),
    }
    assert host["RestartPolicy"]["Name"] == "no"
    assert code == 1
    assert said.startswith("1\n")
    assert "Read-only file system" in said


@pytest.mark.parametrize(
    ("policy", "fields", "has"),
    [
        ({}, {}, {"NET_ADMIN": False, "NET_RAW": True, "SYS_ADMIN": False}),
        (
            {"capabilities": ["NET_ADMIN"]},
            {"cap_add": ("CAP_NET_ADMIN",)},
            {"NET_ADMIN": True, "SYS_ADMIN": False},
        ),
        ({}, {"cap_drop": ("ALL",)}, {"NET_RAW": False, "CHOWN": False}),
    ],
    ids=["as it is", "cap_add", "cap_drop"],
)
def test_a_container_has_the_capabilities_it_asks_for_and_policy_allows(
    make_docker_world: MakeDockerWorld,
    policy: dict[str, object],
    fields: dict[str, object],
    has: dict[str, bool],
) -> None:
    world = make_docker_world(**policy)

    said = world.run("sh", "-c", "grep CapEff /proc/self/status", **fields)

    held = int(said.split()[1], 16)
    assert {name: bool(held & 1 << _CAPABILITIES[name]) for name in has} == has


def test_paths_and_volumes_of_the_config_are_mounted(
    make_docker_world: MakeDockerWorld, tmp_path: Path
) -> None:
    """A path to be read only, and a volume of the engine's that keeps what is written there."""
    (tmp_path / "shown").mkdir()
    (tmp_path / "shown" / "file").write_text("shown")
    world = make_docker_world(mounts=[str(tmp_path), "kept-by-test"])
    mounts = (
        {"source": str(tmp_path / "shown"), "target": "/shown", "read_only": True},
        {"type": "volume", "source": "kept-by-test", "target": "/kept"},
    )
    try:
        wrote = world.run(
            "sh", "-c", "cat /shown/file; touch /shown/x || echo ' kept' > /kept/file", mounts=mounts
        )
        read = world.run("cat", "/kept/file", mounts=mounts, attempt=2)
    finally:
        world.engine.remove_volume("kept-by-test")

    assert wrote == "shown"
    assert read.removeprefix(wrote) == " kept\n"


def test_a_container_on_the_nodes_network_has_no_other(make_docker_world: MakeDockerWorld) -> None:
    world = make_docker_world(network_modes=["host", "none"])

    said = world.run("readlink", "/proc/self/ns/net", network_mode="host")

    assert said.strip() == str(Path("/proc/self/ns/net").readlink())
    assert world.run("ls", "/sys/class/net", network_mode="none", task="apart") == "lo\n"


def test_a_container_is_privileged_where_it_asks_for_it_and_policy_allows(
    make_docker_world: MakeDockerWorld,
) -> None:
    """Made, and not started: inside of another container, as tests may run, the engine may not start one."""
    world = make_docker_world(privileged=True)
    launch = world.launch("true", privileged=True)
    launch.task_dir.mkdir(parents=True)

    made = world.create(create_request(launch, world.owner), f"privileged-{launch.allocation_id}")

    assert world.engine.inspect_container(made)["HostConfig"]["Privileged"] is True
    with pytest.raises(DriverError, match=r"drivers\.docker\.privileged"):
        make_docker_world().start("true", privileged=True)


def test_less_memory_than_the_engine_allows_is_raised_to_that(docker_world: DockerWorld) -> None:
    handle = docker_world.start("sleep", "100", resources=Resources(memory_bytes=Bytes(1024**2)))

    assert docker_world.inspect(handle)["HostConfig"]["Memory"] == 6 * 1024**2


def test_a_published_port_answers_on_the_nodes_address(docker_world: DockerWorld) -> None:
    port = _a_free_port()

    published = [("127.0.0.1", port, 80)]
    docker_world.start("httpd", "-f", "-p", "80", "-h", "/etc", network_mode="", published=published)

    wait_until(lambda: _fetch(port, "/passwd").startswith(b"root:"), "an answer")


def test_a_port_that_is_taken_is_an_error_for_good_and_leaves_no_container(docker_world: DockerWorld) -> None:
    """The allocation may find another node sooner than this one its port."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        published = [("127.0.0.1", holder.getsockname()[1], 80)]
        with pytest.raises(DriverError, match="another program of this node holds that port") as failed:
            docker_world.start("sleep", "100", network_mode="bridge", published=published)

    assert not failed.value.temporary
    assert docker_world.containers() == []


def test_a_task_joins_the_network_of_another_once_that_runs(docker_world: DockerWorld) -> None:
    with pytest.raises(DriverError, match="the task whose network it shares does not run yet") as failed:
        docker_world.start("sleep", "100", task="sidecar", network_mode="task:server")
    assert failed.value.temporary

    server = docker_world.start("sleep", "100", network_mode="bridge")
    sidecar = docker_world.start("sleep", "100", task="sidecar", network_mode="task:server")

    read_link = ["readlink", "/proc/self/ns/net"]
    assert docker_world.driver.execute(server, read_link, _SECONDS) == docker_world.driver.execute(
        sidecar, read_link, _SECONDS
    )


def test_an_image_that_is_not_here_and_must_not_be_pulled_is_an_error_for_good(
    docker_world: DockerWorld,
) -> None:
    with pytest.raises(
        DriverError, match=r'none:1 is not on this node, and config.pull is "never"'
    ) as failed:
        docker_world.start("true", image="none:1", pull="never")

    assert not failed.value.temporary


@pytest.mark.parametrize("pull", ["missing", "always"])
def test_a_registry_that_does_not_answer_is_tried_again(docker_world: DockerWorld, pull: str) -> None:
    with pytest.raises(
        DriverError, match=r"cannot pull 127\.0\.0\.1:1/none:1: .*is the registry up"
    ) as failed:
        docker_world.start("true", image="127.0.0.1:1/none:1", pull=pull)

    assert failed.value.temporary


def test_a_name_that_is_none_of_an_image_is_an_error_for_good(docker_world: DockerWorld) -> None:
    with pytest.raises(DriverError, match="NOT AN IMAGE") as failed:
        docker_world.start("true", image="NOT AN IMAGE")

    assert not failed.value.temporary


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"init": False, "entrypoint": ("nosuch",)}, "the image has no such program"),
        ({"user": "ghost"}, "the image has no such user"),
        ({"network_mode": "other-net"}, "make that network on the node's engine"),
        ({"mounts": ({"source": "/nosuch", "target": "/x"},)}, "make that folder on the node"),
    ],
)
def test_what_cannot_be_started_says_why_and_leaves_no_container(
    make_docker_world: MakeDockerWorld, fields: dict[str, object], words: str
) -> None:
    world = make_docker_world(network_modes=["none", "other-net"], mounts=["/nosuch"])

    with pytest.raises(DriverError, match=words) as failed:
        world.start("true", **fields)

    assert not failed.value.temporary
    assert world.containers() == []


def test_a_link_out_of_what_policy_allows_is_refused(
    make_docker_world: MakeDockerWorld, tmp_path: Path
) -> None:
    """Decided on where the link leads, and nothing is asked of the engine."""
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    (allowed / "way-out").symlink_to("/etc")
    world = make_docker_world(mounts=[str(allowed)])

    with pytest.raises(DriverError, match='the path "/etc" may not be mounted'):
        world.start("true", mounts=({"source": f"{allowed}/way-out", "target": "/x"},))

    assert world.containers() == []


def test_no_driver_where_policy_has_it_off(make_docker_world: MakeDockerWorld) -> None:
    world = make_docker_world(enabled=False)

    with pytest.raises(DriverError, match=r"drivers\.docker\.enabled"):
        world.start("true")

    assert world.driver.fingerprint() is None


def _a_free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _fetch(port: int, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return b""
    finally:
        connection.close()
