"""Secrets of a node: which jobs may name them, what age has encrypted to it, and where no value ever is."""

import contextlib
import json
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyrage
import pytest
import requests

from tests.e2e.cluster import Json, eventually
from tests.e2e.plant import Plant

pytestmark = pytest.mark.e2e


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    made = Plant(tmp_path)
    yield made
    made.end()


def secrets(folder: Path, **values: str) -> Path:
    """A folder of secrets."""
    folder.mkdir(mode=0o700)
    for name, value in values.items():
        (folder / name).write_text(value)
    return folder


def encrypted(text: str, *recipients: str) -> str:
    """What a user pastes into a document."""
    keys = [pyrage.x25519.Recipient.from_str(one) for one in recipients]
    armored: bytes = pyrage.encrypt(text.encode(), keys, armored=True)
    return armored.decode()


def job(name: str, task: str) -> str:
    """A service of one; *task* are fields of its task, one a line."""
    fields = textwrap.indent(textwrap.dedent(task).strip(), "        ").lstrip()
    return (
        f"kind: Job\nname: {name}\nupdate: {{min_healthy_time: 200ms}}\n"
        f"groups:\n  - restart: {{attempts: 0}}\n    tasks:\n      - {fields}\n        kill_timeout: 1s\n"
    )


def block(ciphertext: str) -> str:
    return "|\n" + textwrap.indent(ciphertext, " " * 20).rstrip()


def events(held: Json) -> str:
    return "\n".join(event["message"] for task in held["tasks"].values() for event in task["events"])


def test_a_job_may_name_what_the_node_lets_it(plant: Plant) -> None:
    """Others wait and are told why, without a word of the value."""
    folder = secrets(plant.folder / "secrets", db="marker-4711")
    plant.start_server()
    plant.start_agent("node-1", "--secrets", str(folder))
    plant.agents["node-1"].terminate()
    with (plant.folder / "policy.yaml").open("a") as policy:
        policy.write("secrets: {db: [allowed]}\n")
    plant.start_agent("node-1")
    for name in ("allowed", "other"):
        out = plant.folder / f"{name}.out"
        text = job(
            name,
            f"config: {{command: [sh, -c, 'echo $P > {out}; exec sleep 3600']}}\nenv: {{P: {{secret: db}}}}",
        )
        plant.specs.write(f"{name}.yaml", text)
    plant.api.until_running("allowed", 1)
    eventually(lambda: (plant.folder / "allowed.out").read_text() == "marker-4711\n")
    told = plant.api.until(lambda: _told(plant.command("explain", "other")))
    assert "policy of secrets: job other may not name db" in told
    assert "marker" not in told
    assert plant.node("node-1")["attributes"]["secrets.db"] == "allowed"


def _told(text: str) -> str | None:
    return text if "policy of" in text else None


def test_what_is_encrypted_with_age(plant: Plant) -> None:
    """To the key the node tells: it runs there. To another: it fails with a reason that names the key."""
    plant.start("node-1")
    recipient = plant.node("node-1")["attributes"]["age.recipient"]
    assert recipient in plant.command("nodes", "-o", "wide")
    key = plant.folder / "node-1" / "age.key"
    assert key.stat().st_mode & 0o777 == 0o600
    out = plant.folder / "out"
    plant.specs.write(
        "reads.yaml",
        job(
            "reads",
            f"""
            config: {{command: [sh, -c, 'echo "$P $(cat local/key) $(stat -c %a local/key)" > {out}; exec sleep 3600']}}
            env:
              P:
                age: {block(encrypted("marker-4711", recipient))}
            files:
              - path: local/key
                age: {block(encrypted("marker-4712", recipient))}
            """,
        ),
    )
    plant.api.until_running("reads", 1)
    eventually(lambda: out.exists() and out.read_text() == "marker-4711 marker-4712 600\n")

    stranger = str(pyrage.x25519.Identity.generate().to_public())
    plant.specs.write(
        "fails.yaml",
        job(
            "fails",
            f"""
            config: {{command: [sleep, "3600"]}}
            env:
              P:
                age: {block(encrypted("marker-4713", stranger))}
            """,
        ),
    )
    held = plant.api.until(
        lambda: next((one for one in plant.api.allocations("fails", wanted=False) if events(one)), None)
    )
    assert "env.P: what is encrypted with age cannot be decrypted on this node" in events(held)
    assert recipient in events(held)
    plant.api.until(lambda: plant.api.allocations("fails", wanted=False)[0]["client_status"] == "failed")
    assert "marker-4713" not in events(held)


def test_a_value_that_changes_while_tasks_run(plant: Plant) -> None:
    """Restarted or signalled as they ask, also when it changed while no agent was there; others are not touched."""
    folder = secrets(plant.folder / "secrets", db="old-db", tls="old-tls")
    plant.start_server()
    plant.start_agent("node-1", "--secrets", str(folder))
    out = plant.folder
    plant.specs.write(
        "restarts.yaml",
        job(
            "restarts",
            f"""
            config: {{command: [sh, -c, 'echo "$DB" >> {out}/restarts; exec sleep 3600']}}
            env: {{DB: "${{secret:db}}"}}
            on_secret_change: restart
            splay: 200ms
            """,
        ),
    )
    shows = f"cat local/tls >> {out}/signalled"
    script = f"trap '{shows}' HUP; {shows}; while :; do sleep 0.05; done"
    plant.specs.write(
        "signalled.yaml",
        job(
            "signalled",
            f"""
            config: {{command: [sh, -c, {json.dumps(script)}]}}
            files: [{{path: local/tls, content: "${{secret:tls}}\\n", on_change: SIGHUP}}]
            splay: 0s
            """,
        ),
    )
    plant.specs.write(
        "untouched.yaml", job("untouched", "config: {command: [sleep, '3600']}\nenv: {DB: {secret: db}}")
    )
    before = {name: plant.api.until_running(name, 1) for name in ("restarts", "signalled", "untouched")}
    eventually(lambda: (out / "signalled").exists() and (out / "signalled").read_text() == "old-tls\n")

    (folder / "tls").write_text("new-tls")
    eventually(lambda: (out / "signalled").read_text() == "old-tls\nnew-tls\n", picture=plant.output)
    plant.agents["node-1"].kill()
    (folder / "db").write_text("new-db")
    plant.start_agent("node-1")
    eventually(lambda: (out / "restarts").read_text() == "old-db\nnew-db\n", picture=plant.output)

    (again,) = plant.api.until(lambda: _restarted(plant, before["restarts"]))
    assert again["tasks"]["restarts"]["restarts"] == 0
    assert "secret db changed" in events(again)
    assert plant.api.running("signalled") == before["signalled"]
    assert plant.api.running("untouched") == before["untouched"]


def _restarted(plant: Plant, before: dict[str, tuple[int, str]]) -> list[Json] | None:
    now = plant.api.running("restarts")
    return (
        plant.api.allocations("restarts")
        if now and now != before and all(pid for pid, _ in now.values())
        else None
    )


MARKERS = {"db": "marker-4711-db", "key": "marker-4712-key\nsecond-4713-line", "own": "marker-4714-age"}
ANSWERS = [
    "/",
    "/status",
    "/metrics",
    "/openapi.json",
    "/state",
    "/nodes",
    "/nodes/node-1",
    "/templates",
    "/revisions",
    "/evaluations",
    "/events",
    "/services",
    "/jobs",
    "/allocations",
    "/healthz",
    "/readyz",
]
OF_A_JOB = ("", "/versions", "/allocations", "/evaluations", "/deployments")
COMMANDS = """
status; status well; status -o json; allocs -o yaml; nodes -o wide; events; explain well; explain fails; explain unwell;
revisions; services; export; logs well; plan
"""


def test_no_value_is_anywhere_but_with_its_task(plant: Plant) -> None:
    """Neither in files of server and agent, nor in what they say, answer or are called by; also when things fail."""
    folder = secrets(plant.folder / "given", db=MARKERS["db"], key=MARKERS["key"])
    plant.start_server()
    plant.start_agent("node-1", "--secrets", str(folder), "--log-level", "debug")
    plant.until_ready("node-1")
    own = block(encrypted(MARKERS["own"], plant.node("node-1")["attributes"]["age.recipient"]))
    uses = f"""
        env: {{A: {{secret: db}}, B: "x${{secret:key}}y", C: {{age: {json.dumps(own_text(own))}}}}}
        files:
          - {{path: local/db, secret: db}}
          - {{path: local/conf, content: "key=${{secret:key}}"}}
    """
    shows = 'printf "%s %s %s" "$A" "$B" "$C"'
    for name, command, checks in (
        ("well", ["sh", "-c", "exec sleep 3600"], "[{type: exec, command: ['true'], interval: 200ms}]"),
        ("fails", ["/no/such/program"], "[]"),
        ("unwell", ["sh", "-c", "exec sleep 3600"], json.dumps([a_check(shows)])),
    ):
        task = (
            f"config: {{command: {json.dumps(command)}}}\nchecks: {checks}\n{textwrap.dedent(uses).strip()}"
        )
        plant.specs.write(f"{name}.yaml", job(name, task))
    plant.api.until_running("well", 1)
    plant.api.until(lambda: any("(secret)" in events(one) for one in plant.api.allocations("unwell")))
    plant.api.until(
        lambda: any("no/such/program" in events(one) for one in plant.api.allocations("fails", wanted=False))
    )
    (held,) = plant.api.allocations("well")
    seen = plant.folder / "node-1" / "allocations" / held["id"]
    assert {path.read_text() for path in seen.rglob("local/*")} == {MARKERS["db"], f"key={MARKERS['key']}"}

    found = dict(said(plant, held["id"]))
    found |= {
        str(path): path.read_bytes() for path in written(plant.folder) if "allocations" not in path.parts
    }
    found |= dict(called(plant))
    assert len(found) > 50
    assert {where for where, text in found.items() if any(one in text for one in marked())} == set()
    plant.agents["node-1"].terminate()
    plant.server.terminate()
    stopped = {
        str(path) for path in written(plant.folder) if any(one in path.read_bytes() for one in marked())
    }
    assert stopped  # What the tasks themselves were given.
    assert not {path for path in stopped if "/allocations/" not in path}


def own_text(text: str) -> str:
    return textwrap.dedent(text.removeprefix("|\n"))


def a_check(script: str) -> Json:
    return {"type": "exec", "command": ["sh", "-c", f"{script}; exit 1"], "interval": "200ms"}


def marked() -> list[bytes]:
    return [line.encode() for value in MARKERS.values() for line in value.splitlines()]


def written(folder: Path) -> Iterator[Path]:
    """Every file of server and agent, the given secrets apart."""
    yield from (path for path in folder.rglob("*") if path.is_file() and "given" not in path.parts)


def said(plant: Plant, allocation: str) -> Iterator[tuple[str, bytes]]:
    """All answers of the control plane, and the output of every command that reads them."""
    jobs = [f"/jobs/{name}{part}" for name in ("well", "fails", "unwell") for part in OF_A_JOB]
    for path in (*ANSWERS, *jobs, f"/allocations/{allocation}", f"/allocations/{allocation}/logs"):
        yield path, requests.get(plant.server.url + path, timeout=30).content
    for command in COMMANDS.split(";"):
        yield f"trueup {command}", plant.command(*command.split(), expect=None).encode()


def called(plant: Plant) -> Iterator[tuple[str, bytes]]:
    """What every process of the machine is called by, and the environment of those that are no task."""
    for process in psutil.process_iter():
        with contextlib.suppress(OSError):
            yield f"cmdline {process.pid}", Path(f"/proc/{process.pid}/cmdline").read_bytes()
            if "trueup" in process.name() or process.pid in {plant.server.pid, plant.agents["node-1"].pid}:
                yield f"environ {process.pid}", Path(f"/proc/{process.pid}/environ").read_bytes()
