"""Secrets of a node: which jobs may name them, what age has encrypted to it, and where no value ever is."""

import textwrap
from collections.abc import Iterator
from pathlib import Path

import pyrage
import pytest

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
