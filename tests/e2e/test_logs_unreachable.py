"""Output of tasks, also of a node that the control plane cannot reach: there the agent brings it by itself."""

import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.e2e.cluster import TRUEUP, environment
from tests.e2e.plant import Plant

pytestmark = pytest.mark.e2e

ELSEWHERE = ("--advertise", "127.0.0.77")
"""Where nobody listens, while the agent listens on 127.0.0.1."""


def a_plant(folder: Path, *options: str) -> Iterator[Plant]:
    """A control plane and one agent, `far`."""
    made = Plant(folder)
    made.start_server()
    made.start_agent("far", *options)
    made.until_ready("far")
    yield made
    made.end()


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    """A control plane and an agent that it cannot reach."""
    yield from a_plant(tmp_path, *ELSEWHERE)


@pytest.fixture(params=["reached", "not reached"])
def either(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Plant]:
    """A control plane and an agent, which it can or cannot reach."""
    yield from a_plant(tmp_path, *(ELSEWHERE if request.param == "not reached" else ()))


def job(plant: Plant, script: str, *, name: str = "web", kind: str = "service") -> str:
    """Runs a shell script as a job of one, and returns its allocation's id once it runs."""
    (plant.folder / f"{name}.sh").write_text(script)
    plant.specs.write(
        f"{name}.yaml",
        f"""
        kind: Job
        name: {name}
        type: {kind}
        groups:
          - restart: {{attempts: 5, delay: 100ms}}
            tasks:
              - config: {{command: [/bin/sh, {plant.folder}/{name}.sh]}}
                logs: {{max_files: 20, max_size: 1KiB}}
        """,
    )

    def runs() -> str | None:
        held = plant.api.allocations(name)
        return str(held[0]["id"]) if held and held[0]["client_status"] == "running" else None

    return plant.api.until(runs)


def read(plant: Plant, allocation: str, **parameters: str) -> requests.Response:
    return requests.get(f"{plant.server.url}/allocations/{allocation}/logs", params=parameters, timeout=60)


@contextmanager
def following(plant: Plant, allocation: str) -> "Iterator[subprocess.Popen[bytes]]":
    """`trueup logs -f`, ended at the latest with what is done meanwhile."""
    with subprocess.Popen(
        [str(TRUEUP), "logs", "-f", allocation, "--address", plant.server.url],
        cwd=plant.folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as follower:
        try:
            yield follower
        finally:
            follower.kill()


def brought(plant: Plant, status: int) -> float:
    """How many pieces of output came to the control plane that it answered so."""
    text = requests.get(f"{plant.server.url}/metrics", timeout=30).text
    labels = f'{{method="POST",route="/log-orders/<id>",status="{status}"}}'
    found = re.search(rf"^trueup_http_requests_total{re.escape(labels)} (.+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def numbered(first: int, last: int) -> str:
    return "".join(f"line {number:04d}\n" for number in range(first, last))


def wait_for(file: Path) -> str:
    """Shell: waits for a file."""
    return f"while [ ! -e {file} ]; do sleep 0.05; done\n"


def test_every_parameter(either: Plant) -> None:
    plant = either
    first = plant.folder / "again"
    held = job(
        plant,
        'if [ -z "$(ls here 2>/dev/null)" ]; then mkdir -p here; touch here/was\n'
        f"echo first; echo oops >&2\n{wait_for(first)}exit 1; fi\n"
        'i=0; while [ $i -lt 500 ]; do printf "line %04d\\n" $i; i=$((i+1)); done; exec sleep 3600\n',
    )
    plant.api.until(lambda: read(plant, held).text == "first\n" or None)
    assert read(plant, held, stream="stderr").text == "oops\n"
    first.touch()
    everything = "first\n" + numbered(0, 500)
    plant.api.until(lambda: read(plant, held).text == everything or None)
    assert read(plant, held, tail="3").text == numbered(497, 500)
    assert read(plant, held, offset=str(len("first\n") + 4990)).text == numbered(499, 500)
    assert read(plant, held, previous="true").text == "first\n"
    assert read(plant, held, since="1h").text == everything
    assert read(plant, held, since="0s").text == ""
    stamped = read(plant, held, tail="1", timestamps="true").text
    assert stamped.endswith("Z line 0499\n")
    assert read(plant, held, task="none").status_code == 404
    assert plant.command("logs", "web", "--tail", "2") == numbered(498, 500)
    assert plant.command("logs", "web", "--previous") == "first\n"


def test_following_over_rotation_and_restart_to_the_end(either: Plant) -> None:
    plant = either
    go, end = plant.folder / "go", plant.folder / "end"
    held = job(
        plant,
        'n=$(ls | grep -c "^try"); touch try$n\n'
        f"[ $n = 1 ] || {wait_for(go)}"
        'i=$((n*400)); while [ $i -lt $((n*400+400)) ]; do printf "line %04d\\n" $i; i=$((i+1)); done\n'
        f"[ $n = 1 ] || exit 1\n{wait_for(end)}",
        kind="batch",
    )
    with following(plant, held) as follower:
        assert follower.stdout is not None
        go.touch()
        seen = b"".join(follower.stdout.readline() for _ in range(800))
        assert seen.decode() == numbered(0, 800)
        assert follower.poll() is None
        # The output ends with the task.
        end.touch()
        assert follower.communicate(timeout=60)[0] == b""
        assert follower.returncode == 0


def test_a_follower_that_leaves_ends_the_bringing(plant: Plant) -> None:
    held = job(plant, "echo hello\nexec sleep 3600\n")
    with following(plant, held) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == b"hello\n"
        assert brought(plant, 200)
        assert not brought(plant, 404)
    # The agent's next word is answered so, and it is its last.
    plant.api.until(lambda: brought(plant, 404) == 1 or None)
    assert "trueup_watchers 0.0" in requests.get(f"{plant.server.url}/metrics", timeout=30).text


def test_a_server_that_is_killed_and_comes_back(plant: Plant) -> None:
    held = job(plant, "echo hello\nexec sleep 3600\n")
    with following(plant, held) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == b"hello\n"
        plant.server.kill()
        assert follower.wait(60) == 1
        assert follower.stderr is not None
        assert b"broke off" in follower.stderr.read()
    plant.start_server()
    plant.until_ready("far")
    plant.api.until(lambda: read(plant, held).text == "hello\n" or None)


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_an_agent_that_goes_away_is_no_end_of_the_output(either: Plant, how: str) -> None:
    plant = either
    held = job(plant, "echo hello\nexec sleep 3600\n")
    with following(plant, held) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == b"hello\n"
        if how == "killed":
            plant.agents["far"].kill()
        else:
            plant.agents["far"].terminate()
        assert follower.wait(60) == 1
    plant.start_agent("far")
    plant.api.until(lambda: read(plant, held).text == "hello\n" or None)


def test_two_hundred_readers_at_once_starve_no_heartbeat(plant: Plant) -> None:
    held = job(plant, "echo hello\nexec sleep 3600\n")
    with ThreadPoolExecutor(200) as pool:
        asked = [
            pool.submit(
                requests.get,
                f"{plant.server.url}/allocations/{held}/logs",
                params={"follow": "true"} if number % 2 else {},
                stream=True,
                timeout=60,
            )
            for number in range(200)
        ]
        answers = [one.result(120) for one in asked]
    refused = [answer for answer in answers if answer.status_code == 503]
    assert {answer.status_code for answer in answers} == {200, 503}
    assert all(answer.headers["Retry-After"] for answer in refused)
    # Those that follow hold their places: beats come through, and what does not wait is answered all the same.
    job(plant, "exec sleep 3600\n", name="other")
    assert plant.node("far")["status"] == "ready"
    types = {one["type"] for one in plant.api.get("/events", limit="1000")["items"]}
    assert "NodeRegistered" in types
    assert not types & {"NodeDown", "NodeReady"}
    for answer in answers:
        answer.close()
    plant.api.until(lambda: read(plant, held).text == "hello\n" or None)
