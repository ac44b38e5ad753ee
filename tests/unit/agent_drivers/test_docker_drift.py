"""A container that is not what the task's was started with, under its name and with its labels: it is replaced."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.drivers.docker_container import Container
from agent.drivers.docker_engine import Engine, EngineAddress
from agent.drivers.docker_making import make_container
from agent.drivers.docker_origin import ORIGIN, foreseen, origin_of, strayed
from agent.drivers.docker_spec import create_request
from tests.unit.agent_drivers.docker_world import IMAGE, DockerWorld, a_launch
from tests.unit.agent_drivers.process_world import wait_until

pytestmark = [pytest.mark.docker, pytest.mark.e2e]

Recreate = Callable[..., str]


@pytest.fixture
def other_image(docker_world: DockerWorld) -> Iterator[str]:
    """The run's image with a variable, an entrypoint and a command."""
    engine, name = docker_world.engine, f"trueup-test-{docker_world.owner.cluster[:8]}"
    made = engine.create_container(IMAGE)
    changes = ["ENV COLOUR=red SIZE=2", 'ENTRYPOINT ["sleep"]', 'CMD ["100"]']
    engine.commit(made["Id"], repository=name, tag="1", changes=changes)
    engine.remove_container(made["Id"])
    yield f"{name}:1"
    engine.remove_image(f"{name}:1", force=True)


@pytest.fixture
def recreate(docker_world: DockerWorld) -> Recreate:
    """Puts another in a container's place, as tools do that bring newer images: name and labels stay."""

    def recreate(before: dict[str, Any], host: Mapping[str, Any] | None = None, **changes: Any) -> str:
        engine = docker_world.engine
        engine.remove_container(before["Id"], force=True)
        body = {**before["Config"], **changes, "HostConfig": {**before["HostConfig"], **(host or {})}}
        made = docker_world.create(body, before["Name"].removeprefix("/"))
        engine.start(made)
        return made

    return recreate


CHANGES: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "other command": ({"Cmd": ["sleep", "99"]}, {}),
    "other env": ({"Env": ["MODE=test"]}, {}),
    "other mounts": ({}, {"Binds": ["/tmp:/host:ro"]}),
}


@pytest.mark.parametrize("differs", CHANGES)
def test_another_in_its_place_is_told_by_the_label_alone_and_replaced(
    docker_world: DockerWorld, recreate: Recreate, differs: str
) -> None:
    """By an agent that knows nothing else of it."""
    before = docker_world.inspect(docker_world.start("sleep", "100", environment={"MODE": "prod"}))
    changes, host = CHANGES[differs]
    recreate(before, host, **changes)
    docker_world.restart()
    [found] = docker_world.driver.recover()

    status = docker_world.driver.status(found)
    assert (status.state, status.error) == (
        "gone",
        f"another container was put in its place: {differs}",
    )
    again = docker_world.start("sleep", "100", environment={"MODE": "prod"})

    after = docker_world.inspect(again)
    assert docker_world.driver.status(again).state == "running"
    assert [after["Config"][part] for part in ("Cmd", "Env", "Image")] == [
        before["Config"][part] for part in ("Cmd", "Env", "Image")
    ]
    assert len(docker_world.containers()) == 1


def test_another_image_in_its_place_is_told_and_ended_with_it(
    docker_world: DockerWorld, recreate: Recreate, other_image: str
) -> None:
    """Also by the agent that started it: what it removes is what it has no more of, and what is there instead."""
    handle = docker_world.start("sleep", "100")
    before = docker_world.inspect(handle)
    recreate(before, Image=other_image)
    image = docker_world.engine.inspect_image(other_image)["Id"]  # type: ignore[no-untyped-call]

    status = docker_world.driver.status(handle)
    assert status.state == "gone"
    assert status.error == (
        "another container was put in its place: "
        f"image {image[:19]} in place of {before['Image'][:19]}, other command, other env"
    )
    docker_world.driver.remove(handle)
    assert docker_world.containers() == []


def test_the_same_again_in_its_place_is_another_to_who_started_it(
    docker_world: DockerWorld, recreate: Recreate
) -> None:
    """To who knows only its labels it is what was asked for."""
    handle = docker_world.start("sleep", "100")
    recreate(docker_world.inspect(handle))

    status = docker_world.driver.status(handle)
    assert (status.state, status.error) == ("gone", "another container was put in its place")
    docker_world.restart()
    [found] = docker_world.driver.recover()
    assert docker_world.driver.status(found).state == "running"


def test_what_stands_in_its_place_without_its_labels_is_left_alone(
    docker_world: DockerWorld, recreate: Recreate
) -> None:
    handle = docker_world.start("sleep", "100")
    made = recreate(docker_world.inspect(handle), Labels={})

    assert docker_world.driver.status(handle).error == "its container was removed"
    docker_world.driver.remove(handle)

    assert docker_world.engine.inspect_container(made)["State"]["Running"]
    docker_world.engine.remove_container(made, force=True)


def test_a_later_start_is_not_taken_for_what_stands_in_the_place_of_an_earlier(
    docker_world: DockerWorld,
) -> None:
    first = docker_world.start("true")
    docker_world.ended(first)
    second = docker_world.start("sleep", "100", attempt=2)

    docker_world.driver.remove(first)

    assert docker_world.driver.status(second).state == "running"


def test_new_limits_and_another_name_make_no_other_container(docker_world: DockerWorld) -> None:
    """`docker update` and `docker rename`: the next start has its own again."""
    handle = docker_world.start("sleep", "100")
    container = docker_world.inspect(handle)["Id"]
    docker_world.engine.update_container(container, cpu_shares=512)
    docker_world.engine.rename(container, f"by-hand-{docker_world.owner.cluster}")
    docker_world.restart()

    assert list(docker_world.driver.recover()) == [handle]
    assert docker_world.driver.status(handle).state == "running"
    docker_world.driver.kill(handle)
    docker_world.ended(handle)
    docker_world.driver.remove(handle)
    assert docker_world.containers() == []


@pytest.mark.parametrize(
    ("args", "fields"),
    [
        ((), {}),
        (("50",), {}),
        (("sleep", "50"), {"entrypoint": ()}),
        ((), {"entrypoint": ("sleep", "50")}),
        (("50",), {"entrypoint": ("sleep",)}),
        (("50",), {"environment": {"COLOUR": "blue", "MODE": ""}}),
        ((), {"mounts": ({"type": "tmpfs", "target": "/scratch/"}, {"type": "volume", "target": "/kept"})}),
    ],
)
def test_what_a_container_is_made_with_is_known_before(
    docker_world: DockerWorld, other_image: str, args: tuple[str, ...], fields: dict[str, Any]
) -> None:
    """What the task leaves open is the image's: a wrong guess would make each container twice."""
    launch = docker_world.launch(*args, image=other_image, **fields)
    request = create_request(launch, docker_world.owner)
    with _engine(docker_world.address.host) as engine:
        seen = foreseen(request, engine.inspect_image(other_image))

    made = _inspected(docker_world, docker_world.inspect(docker_world.driver.start(launch))["Id"])

    assert (origin_of(made), strayed(made)) == (seen, "")
    assert made.labels[ORIGIN] == seen.label[ORIGIN]


def test_an_image_that_says_nothing_of_how_it_is_run(docker_world: DockerWorld) -> None:
    """As one that was imported: all comes from the task."""
    engine, repository = docker_world.engine, f"trueup-test-{docker_world.owner.cluster[:8]}-bare"
    made = engine.create_container(IMAGE)
    files = b"".join(engine.export(made["Id"]))
    engine.remove_container(made["Id"])
    engine.import_image_from_data(files, repository=repository, tag="1")
    try:
        handle = docker_world.start("/bin/sleep", "100", image=f"{repository}:1")
        assert docker_world.driver.status(handle).state == "running"
        assert strayed(_inspected(docker_world, docker_world.inspect(handle)["Id"])) == ""
    finally:
        engine.remove_image(f"{repository}:1", force=True)


class _Retagging(Engine):
    """The engine, with somebody who has a tag go on to the next of *images* just before each container is made."""

    def __init__(self, host: str, images: Iterator[str]) -> None:
        super().__init__(EngineAddress(host=host, chosen=True))
        self.images = images

    def create(self, request: Mapping[str, Any], name: str) -> str:
        repository, _, tag = request["Image"].rpartition(":")
        image = next(self.images)
        self._call(10, lambda client: client.tag(image, repository, tag, force=True))
        return super().create(request, name)


@pytest.mark.parametrize(
    ("moves", "compared"),
    [(("other", "other"), True), (("other", "first", "other", "first"), False)],
    ids=["once", "each time"],
)
def test_a_tag_that_moves_while_a_container_is_made(
    docker_world: DockerWorld, other_image: str, tmp_path: Path, moves: tuple[str, ...], compared: bool
) -> None:
    """The label says what was made in the end; where that is another each time, there is none."""
    repository = other_image.rpartition(":")[0]
    tag = f"{repository}:moving"
    docker_world.engine.tag(IMAGE, repository, "moving")
    images = {"first": IMAGE, "other": other_image}
    engine = _Retagging(docker_world.address.host, iter([images[move] for move in moves]))
    launch = a_launch(tmp_path, "sleep", "100", image=tag, allocation_id=docker_world.owner.cluster)
    launch.task_dir.mkdir(parents=True)
    with contextlib.closing(engine):
        made: Container = make_container(engine, create_request(launch, docker_world.owner), "moving")
        wanted = engine.inspect_image(images[moves[-1]]).id
    docker_world.engine.remove_image(tag, force=True)

    assert made.image == wanted
    assert (ORIGIN in made.labels) is compared
    assert strayed(made) == ""
    assert [one["Id"] for one in docker_world.containers()] == [made.id]


def test_a_container_of_an_earlier_release_has_no_such_label_and_is_found(docker_world: DockerWorld) -> None:
    handle = docker_world.start("sleep", "100")
    before = docker_world.inspect(handle)
    docker_world.engine.remove_container(before["Id"], force=True)
    labels = {name: value for name, value in before["Config"]["Labels"].items() if name != ORIGIN}
    made = docker_world.create(
        {**before["Config"], "Labels": labels, "HostConfig": before["HostConfig"]},
        before["Name"].removeprefix("/"),
    )
    docker_world.engine.start(made)
    docker_world.restart()

    again = docker_world.start("sleep", "100")

    assert docker_world.inspect(again)["Id"] == made
    wait_until(lambda: docker_world.driver.status(again).state == "running")


def _inspected(world: DockerWorld, container: str) -> Container:
    with _engine(world.address.host) as engine:
        return engine.inspect(container)


@contextlib.contextmanager
def _engine(host: str) -> Iterator[Engine]:
    with contextlib.closing(Engine(EngineAddress(host=host, chosen=True))) as engine:
        yield engine
