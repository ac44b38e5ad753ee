"""What runs in a pull request: `validate` and `plan` start nothing that specs name and talk to the control plane alone.

Watched from outside: every program they start and every connection they try.
"""

import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e.cluster import TRUEUP, Specs, Up, environment
from tests.require import require

pytestmark = pytest.mark.e2e

CANARY = "canary-of-the-runner"
HOSTILE = """
kind: Job
name: web
groups:
  - tasks:
      - name: server
        config: {command: [/bin/sh, -c, "touch $HOME/ran; echo ${NODE_NAME}"]}
        env: {HOME_OF_RUNNER: "$HOME", TOKEN: "$RUNNER_TOKEN"}
        artifacts: [{source: "https://artifacts.example.org/a", checksum: "sha256:SUM", destination: local/}]
      - name: sidecar
        config: {image: "registry.example.org/never-pulled:1"}
        lifecycle: {hook: prestart, sidecar: true}
---
kind: Cluster
name: cluster
notifications: [{url: "https://hooks.example.org/x", on: [held]}]
"""


def traced(folder: Path, *arguments: str, expect: int = 0) -> tuple[str, set[str], set[str]]:
    """What a command printed, the programs that it and its children ran, and where they connected to."""
    log = folder / "strace.log"
    done = subprocess.run(
        [
            "strace",
            "-f",
            "-qq",
            "-s",
            "300",
            "-e",
            "trace=connect,sendto,execve",
            "-o",
            str(log),
            str(TRUEUP),
            *arguments,
        ],
        cwd=folder,
        env={**environment(), "RUNNER_TOKEN": CANARY},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == expect, done.stdout + done.stderr
    seen = log.read_text()
    programs = set(re.findall(r'execve\("([^"]+)".*= 0$', seen, flags=re.MULTILINE))
    inet = re.findall(r'sin6?_port=htons\((\d+)\).*?inet_(?:addr|pton)\((?:AF_INET6, )?"([^"]+)"', seen)
    return (
        done.stdout + done.stderr,
        {Path(one).name for one in programs},
        {f"{host}:{port}" for port, host in inet},
    )


def test_a_plan_runs_nothing_of_the_specs_and_asks_the_control_plane_alone(up: Up) -> None:
    """No driver, no artifact, no image, no webhook; `$HOME` stays as it is written, and the runner's values unsaid."""
    require("strace")
    require("git")
    up.specs.write(
        "calm.yaml",
        "kind: Job\nname: calm\ntype: batch\nsuspended: true\ngroups: [{tasks: [{config: {command: [x]}}]}]\n",
    )
    up.start()
    up.api.until(lambda: up.api.status()["revision"])
    planned = Specs(up.folder / "planned")
    planned.write("calm.yaml", (up.specs.folder / "calm.yaml").read_text())
    planned.write("web.yaml", HOSTILE.replace("SUM", "0" * 64))
    url = up.running.url
    ours = {TRUEUP.name, "git", *(path.name for path in Path(TRUEUP).parent.glob("python*"))}

    said, programs, connections = traced(up.folder, "validate", "planned")
    assert (connections, programs - ours) == (set(), set()), said
    for form in ("text", "json", "markdown"):
        said, programs, connections = traced(up.folder, "plan", "planned", "-o", form, "--address", url)
        assert "web" in said
        assert CANARY not in said
        assert connections == {url.removeprefix("http://")}
        assert programs - ours == set()
    assert not list(up.folder.rglob("ran"))
