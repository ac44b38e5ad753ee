"""A forge's nudge reaches a control plane that would not look for an hour: what was pushed runs."""

import hashlib
import hmac
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.e2e.git_cluster import GitCluster, Pushed
from tests.git_hosts import GitHttps
from tests.require import require

pytestmark = pytest.mark.e2e

SECRET = "shared-with-the-forge"
JOB = """
kind: Job
name: web
update: {min_healthy_time: 100ms}
groups: [{tasks: [{config: {command: [sleep, "3600"]}, kill_timeout: 2s}]}]
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[GitCluster]:
    made = GitCluster(tmp_path, nodes=("node-1",))
    yield made
    made.end()


def test_what_is_pushed_runs_when_the_forge_says_so(cluster: GitCluster, tmp_path: Path) -> None:
    """Polled is once an hour and nothing watches a remote: without the nudge nothing would come of the push."""
    require("git")
    (tmp_path / "host").mkdir()
    pushed = Pushed(tmp_path / "host")
    pushed.commit_and_push({"cluster.yaml": "kind: Cluster\nname: cluster\n"})
    secret = tmp_path / "notify"
    secret.touch(mode=0o600)
    secret.write_text(f"{SECRET}\n")
    with GitHttps(tmp_path / "host").running() as host:
        cluster.start(
            host.url("specs.git"),
            "--poll",
            "1h",
            "--git-ca",
            str(host.ca_file),
            "--notify-secret-file",
            str(secret),
        )
        first = cluster.api.until(lambda: cluster.api.status()["revision"])
        assert pushed.commit_and_push({"web.yaml": JOB}) != first

        body = b'{"ref": "refs/heads/main"}'
        url = f"{cluster.server.url}/notify"
        refused = requests.post(url, body, headers={"X-Hub-Signature-256": "sha256=00"}, timeout=30)
        assert refused.status_code == 401
        assert cluster.api.status()["revision"] == first

        signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        for _ in range(20):
            answer = requests.post(
                url, body, headers={"X-Hub-Signature-256": f"sha256={signature}"}, timeout=30
            )
            assert answer.status_code == 202, answer.text
        assert cluster.api.until_running("web", 1)
        assert SECRET not in cluster.server.output()
