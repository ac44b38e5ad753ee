"""A task whose program came over http: fetched, checked, unpacked, rolled to its next version, and what forbids it."""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.e2e.cluster import Up, eventually
from tests.unit.agent.archives import a_file, a_tar
from tests.unit.agent.artifact_host import ArtifactHost, an_artifact_host, sha256

pytestmark = pytest.mark.e2e

APP = """\
kind: Job
name: app
update: {min_healthy_time: 200ms}
groups:
  - ports: [{name: http}]
    restart: {attempts: 0}
    reschedule: {attempts: 0, interval: 1h}
    tasks:
      - config: {command: [local/app/bin/serve, "${PORT_http}"]}
        artifacts:
          - {source: "SOURCE", checksum: "CHECKSUM"}
          - {source: "HOST/page.html", checksum: "PAGE", destination: "local/app/${JOB_NAME}.html"}
        checks: [{type: http, port: http, path: /app.html, interval: 300ms, timeout: 2s}]
"""
SERVE = b"""\
#!/bin/sh
cd "$(dirname "$0")/.." && exec python3 -m http.server --bind 127.0.0.1 "$1"
"""
PAGE = b"<p>fetched</p>"


@pytest.fixture
def host() -> Iterator[ArtifactHost]:
    with an_artifact_host() as made:
        made.files = {
            "/app-1.tar.gz": a_tar([a_file("app/bin/serve", SERVE, 0o755), a_file("app/version", b"1")]),
            "/app-2.tar.xz": a_tar(
                [a_file("app/bin/serve", SERVE, 0o755), a_file("app/version", b"2")], "xz"
            ),
            "/page.html": PAGE,
        }
        yield made


@pytest.fixture
def fetching_up(tmp_path: Path, host: ArtifactHost) -> Iterator[Up]:
    """`trueup up` on a node that may fetch from that host, also without TLS."""
    policy = tmp_path / "options.yaml"
    policy.write_text(f"artifacts: {{hosts: ['{host.url.removeprefix('http://')}']}}\n")
    made = Up(tmp_path, "--config", str(policy))
    yield made
    made.end()


def app(host: ArtifactHost, path: str, checksum: str = "") -> str:
    return (
        APP.replace("SOURCE", host.url.replace("//", "//me:hidden@") + path)
        .replace("CHECKSUM", checksum or sha256(host.files[path]))
        .replace("PAGE", sha256(PAGE))
        .replace("HOST", host.url)
    )


def served(up: Up, path: str) -> str:
    (held,) = up.api.allocations("app")
    with urlopen(f"http://127.0.0.1:{held['ports']['http']}{path}", timeout=5) as answer:
        found: bytes = answer.read()
    return found.decode()


def test_a_program_from_an_archive_runs_and_rolls_to_its_next_version(
    fetching_up: Up, host: ArtifactHost
) -> None:
    up = fetching_up
    up.specs.write("app.yaml", app(host, "/app-1.tar.gz"))
    up.start()
    up.api.until_running("app", 1)
    assert served(up, "/version") == "1"
    assert served(up, "/app.html") == PAGE.decode()
    said = up.command("explain", "app.app[0]")
    assert "Downloading artifacts" in said

    up.specs.write("app.yaml", app(host, "/app-2.tar.xz"))
    eventually(lambda: up.api.job("app")["version"] == 2)
    up.api.until_running("app", 1)
    assert served(up, "/version") == "2"
    assert sorted(host.requests) == ["/app-1.tar.gz", "/app-2.tar.xz", "/page.html"]


def test_an_artifact_that_is_not_what_the_job_wants_starts_nothing(
    fetching_up: Up, host: ArtifactHost
) -> None:
    up = fetching_up
    up.specs.write("app.yaml", app(host, "/app-1.tar.gz", sha256(b"something else")))
    up.start()

    def failed() -> list[str] | None:
        allocations = up.api.allocations("app", wanted=False)
        events = [event for one in allocations for task in one["tasks"].values() for event in task["events"]]
        return [event["message"] for event in events if event["type"] == "Artifact failure"] or None

    (message,) = up.api.until(failed)
    assert message.startswith(f"{host.url}/app-1.tar.gz is not what the job wants: its sha256 is ")
    assert up.api.running("app") == {}
    assert "hidden" not in up.command("explain", "app")
    assert "hidden" not in json.dumps([one["tasks"] for one in up.api.allocations("app", wanted=False)])
    assert "hidden" not in up.running.output()


def test_work_whose_artifacts_no_node_may_fetch_waits_and_says_why(up: Up, host: ArtifactHost) -> None:
    up.specs.write("app.yaml", app(host, "/app-1.tar.gz"))
    up.start()
    reason = "policy of artifacts: artifacts over http are not allowed"
    eventually(lambda: reason in up.command("explain", "app"))
    assert host.requests == []
