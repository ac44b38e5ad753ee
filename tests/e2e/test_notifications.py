"""A person is told what is wrong and that it is over, by real processes, also over a restart of the control plane."""

from pathlib import Path

import pytest

from tests.e2e.cluster import Up
from tests.receiver import receiving

pytestmark = pytest.mark.e2e

CANARY = "canary-of-an-env-value"


def job(command: str) -> str:
    return f"""
    kind: Job
    name: web
    update: {{min_healthy_time: 100ms}}
    groups:
      - restart: {{attempts: 0}}
        reschedule: {{attempts: 0}}
        tasks: [{{config: {{command: [{command}]}}, env: {{PASSWORD: {CANARY}}}, kill_timeout: 1s}}]
    """


def test_a_job_fails_the_server_restarts_and_it_is_mended(up: Up, tmp_path: Path) -> None:
    """One notice of the failure, none again after the restart, and one when it is over."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "hook-key").write_text("shared with the receiver\n")
    with receiving() as receiver:
        up.options = ("--notification-host", receiver.host, "--secrets", str(secrets))
        up.specs.write(
            "cluster.yaml",
            f"""
            kind: Cluster
            name: cluster
            notifications: [{{url: "{receiver.url}/hook", secret: hook-key, on: [Degraded, Invalid], after: 1s}}]
            """,
        )
        up.specs.write("web.yaml", job('"false"'))
        up.start()
        (began,) = receiver.until(1)
        up.api.until(lambda: not up.api.job("web")["groups"][0]["running"])
        up.running.terminate()
        up.start()
        up.specs.write("broken.yaml", "kind: Job\nname: broken\ncuont: 3\n")
        receiver.until(2)
        up.specs.write("web.yaml", job('sleep, "3600"'))
        up.specs.remove("broken.yaml")
        receiver.until(4)
    assert receiver.told[:2] == [("firing", "Degraded", "web"), ("firing", "Invalid", "")]
    assert sorted(receiver.told[2:]) == [("resolved", "Degraded", "web"), ("resolved", "Invalid", "")]
    assert began.headers["webhook-signature"].startswith("v1,")
    assert all(CANARY.encode() not in one.body for one in receiver.requests)
    assert "broken.yaml" in receiver.requests[1].document["message"]
