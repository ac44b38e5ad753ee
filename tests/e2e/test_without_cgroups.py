"""A node on which no cgroup can be written: it says so, and its tasks end as whole as elsewhere."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import Json, eventually, is_alive
from tests.e2e.plant import Plant
from tests.require import require

pytestmark = pytest.mark.e2e

HIDDEN = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o ro none /sys/fs/cgroup && exec "$@"', "hidden"]
DAEMONS = """
kind: Job
name: daemons
update: {{min_healthy_time: 100ms}}
groups:
  - tasks:
      - config:
          command:
            - /bin/sh
            - -c
            - |
              trap '' TERM
              (setsid sh -c 'trap "" TERM; echo $$ >> {pids}; exec sleep 3600' &)
              (sleep 3600 & echo $! >> {pids}; exec sleep 3600) &
              echo $! >> {pids}
              while :; do sleep 0.05; done
        kill_timeout: 1s
"""


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    made = Plant(tmp_path)
    yield made
    made.end()


def test_a_node_without_cgroups(plant: Plant) -> None:
    """What ignores its signal is killed after its time, and so is every daemon it left."""
    require("namespaces")
    pids = plant.folder / "pids"
    plant.specs.write("daemons.yaml", DAEMONS.format(pids=pids))
    plant.specs.write(
        "other.yaml",
        "kind: Job\nname: other\nsuspended: true\ngroups: [{tasks: [{config: {command: [x]}}]}]\n",
    )
    plant.start_server()
    plant.start_agent("node-1", through=HIDDEN)
    before = plant.api.until_running("daemons", 1)["daemons.daemons[0]"]
    driver = plant.node("node-1")["drivers"]["process"]
    assert (driver["attributes"]["cgroup"], driver["attributes"]["limits"]) == ("none", "none")
    assert (
        "no cgroup can be written on this node: cpu and memory of tasks are not limited" in driver["detail"]
    )
    eventually(lambda: pids.exists() and pids.read_text().count("\n") == 3)
    plant.specs.remove("daemons.yaml")
    started = [before[0], *map(int, pids.read_text().split())]
    eventually(lambda: not any(map(is_alive, started)), picture=plant.output)
    (held,) = plant.api.until(lambda: ended(plant))
    kinds = [event["type"] for event in held["tasks"]["daemons"]["events"]]
    assert kinds[-3:] == ["Stopping", "Killing", "Terminated"]


def ended(plant: Plant) -> list[Json] | None:
    found = plant.api.allocations("daemons", wanted=False)
    return found if found and all(one["client_status"] == "complete" for one in found) else None
