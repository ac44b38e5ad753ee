"""Under which addresses a service is found: those whose tasks run and whose checks pass, and no other."""

from urllib.request import urlopen

import pytest

from tests.e2e.cluster import Json, Up

pytestmark = pytest.mark.e2e

WEB = """\
kind: Job
name: web
update: {min_healthy_time: 200ms}
groups:
  - count: 2
    ports: [{name: http}]
    services: [{name: shop, port: http, labels: {team: red}}]
    tasks:
      - config: {command: [python3, -m, http.server, --bind, 127.0.0.1, "${PORT_http}"]}
        checks: [{type: http, port: http, path: PATH, interval: 300ms, timeout: 2s}]
"""


def addresses(up: Up, count: int) -> list[Json]:
    """The addresses of the service, once there are so many."""

    def found() -> list[Json] | None:
        listed: list[Json] = up.api.get("/services/shop")["addresses"]
        return listed if len(listed) == count else None

    return up.api.until(found)


def test_a_service_is_found_where_it_is_healthy_and_nowhere_else(up: Up) -> None:
    up.specs.write("web.yaml", WEB.replace("PATH", "/"))
    up.start()
    found = addresses(up, 2)
    assert [one["allocation"] for one in found] == ["web.web[0]", "web.web[1]"]
    for one in found:
        with urlopen(f"http://{one['address']}/", timeout=5) as answer:
            assert answer.status == 200

    targets = up.api.get("/services/shop", format="prometheus")
    assert [one["targets"] for one in targets] == [[one["address"]] for one in found]
    assert targets[0]["labels"]["__meta_trueup_label_team"] == "red"
    said = up.command("services")
    assert all(one["address"] in said for one in found)

    up.specs.write("web.yaml", WEB.replace("PATH", "/").replace("count: 2", "count: 1"))
    assert addresses(up, 1) == found[:1]

    # Checks are in place: the task runs on, but is no longer found.
    before = up.api.running("web")
    up.specs.write("web.yaml", WEB.replace("PATH", "/absent").replace("count: 2", "count: 1"))
    assert addresses(up, 0) == []
    assert up.api.running("web") == before

    up.specs.write("web.yaml", WEB.replace("PATH", "/").replace("count: 2", "count: 1"))
    assert addresses(up, 1) == found[:1]
