"""What a task gets, how it is watched, what becomes of its end and of what it writes."""

import json
import os
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.e2e.cluster import TRUEUP, Json, Up, environment, eventually

pytestmark = pytest.mark.e2e

SECRET = "correct horse battery staple"


@pytest.fixture
def secrets_up(tmp_path: Path) -> Iterator[Up]:
    """`trueup up` on a node that has the secret `db-password`."""
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o700)
    (folder / "db-password").write_text(f"{SECRET}\n")
    made = Up(tmp_path, "--secrets", str(folder), "--region", "eu", "--name", "here")
    yield made
    made.end()


def service(name: str, task: str, group: str = "") -> str:
    """A service of one; *task* and *group* are the fields of each, one a line."""
    return f"kind: Job\nname: {name}\nupdate: {{min_healthy_time: 200ms}}\ngroups:\n  -\n" + textwrap.indent(
        f"{group.strip()}\ntasks:\n  -\n{textwrap.indent(task.strip(), '    ')}\n", "    "
    )


def only(up: Up, job: str) -> Json:
    """The one wanted allocation of a job; there may be none yet."""
    (held,) = up.api.until(lambda: up.api.allocations(job) or None)
    return held


def events(allocation: Json) -> list[tuple[str, str]]:
    (task,) = allocation["tasks"].values()
    return [(event["type"], event["message"]) for event in task["events"]]


def test_a_task_gets_variables_files_and_an_environment_built_from_nothing(secrets_up: Up) -> None:
    up = secrets_up
    out = up.folder / "seen"
    up.specs.write("page.txt", "served by ${ALLOC_NAME} at ${PORT_http}, ${unknown} stays\n")
    up.specs.write(
        "seen.yaml",
        service(
            "seen",
            f"""
config: {{command: [/bin/sh, -c, "env > {out}.new; mv {out}.new {out}; exec sleep 3600"]}}
env:
  NUMBER: 012
  NO: NO
  WHERE: "${{NODE_REGION}}/${{JOB_NAME}}"
  DB: "pg://${{secret:db-password}}@db"
  PLAIN: {{secret: db-password}}
files:
  - {{path: local/page.txt, source: ./page.txt, mode: "0640"}}
  - {{path: local/password, secret: db-password}}
  - {{path: local/note, content: "I am ${{TASK_NAME}}"}}
kill_timeout: 1s
""",
            "ports: [{name: http}]",
        ),
    )
    os.environ["SHOULD_NOT_REACH_TASKS"] = "1"
    try:
        up.start()
    finally:
        del os.environ["SHOULD_NOT_REACH_TASKS"]
    up.api.until_running("seen", 1)
    held = only(up, "seen")
    seen = dict(line.split("=", 1) for line in out.read_text().splitlines())
    port = str(held["ports"]["http"])
    expected = {
        "NUMBER": "012",
        "NO": "NO",
        "WHERE": "eu/seen",
        "DB": f"pg://{SECRET}@db",
        "PLAIN": SECRET,
        "LANG": "C.UTF-8",
        "TRUEUP_JOB_NAME": "seen",
        "TRUEUP_GROUP_NAME": "seen",
        "TRUEUP_TASK_NAME": "seen",
        "TRUEUP_ALLOC_NAME": "seen.seen[0]",
        "TRUEUP_ALLOC_ID": held["id"],
        "TRUEUP_ALLOC_INDEX": "0",
        "TRUEUP_NODE_NAME": "here",
        "TRUEUP_NODE_ID": held["node_id"],
        "TRUEUP_NODE_REGION": "eu",
        "TRUEUP_REVISION": held["revision"],
        "TRUEUP_PORT_http": port,
        "TRUEUP_HOST_PORT_http": port,
        "TRUEUP_ADDR_http": f"{seen['TRUEUP_HOST_IP']}:{port}",
        "TRUEUP_ALLOC_EPOCH": str(held["epoch"]),
    }
    assert {name: seen.get(name) for name in expected} == expected
    known = {"PATH", "HOME", "USER", "LANG", "NUMBER", "NO", "WHERE", "DB", "PLAIN"}
    # PWD, SHLVL, OLDPWD and _ are the shell's own.
    others = {name for name in seen if not name.startswith("TRUEUP_")} - known
    assert others <= {"PWD", "SHLVL", "OLDPWD", "_"}
    folder = Path(seen["TRUEUP_TASK_DIR"])
    assert seen["PWD"] == str(folder)
    page = folder / "local" / "page.txt"
    assert page.read_text() == f"served by seen.seen[0] at {port}, ${{unknown}} stays\n"
    assert page.stat().st_mode & 0o777 == 0o640
    assert (folder / "local" / "note").read_text() == "I am seen"
    hidden = folder / "local" / "password"
    assert (hidden.read_text(), hidden.stat().st_mode & 0o777) == (SECRET, 0o600)

    no_answer_says_the_secret(up, held["id"])


def no_answer_says_the_secret(up: Up, allocation: str) -> None:
    paths = ["/jobs", "/jobs/seen", "/jobs/seen/versions", "/allocations", f"/allocations/{allocation}"]
    paths += ["/state", "/events", "/evaluations", "/revisions", "/nodes", "/status", "/metrics", "/"]
    for path in paths:
        answer = requests.get(up.running.url + path, timeout=30)
        assert answer.status_code == 200, path
        assert SECRET not in answer.text, path
    assert SECRET not in up.running.output()
    assert SECRET not in up.command("explain", "seen")
    for file in (up.folder / ".trueup" / "server").rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes(), file


def test_a_missing_secret_is_a_reason_named(secrets_up: Up) -> None:
    up = secrets_up
    up.specs.write(
        "lacks.yaml", service("lacks", "config: {command: [sleep, '9']}\nenv: {A: {secret: nope}}")
    )
    up.start()
    (unplaced,) = up.api.until(lambda: up.api.job("lacks")["unplaced"] or None)
    assert unplaced["reasons"] == {"secret nope is missing": 1}
    assert "secret nope is missing" in up.command("explain", "lacks")


# A server that fails its check while the file `sick` is there.
SERVER = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(500 if os.path.exists(sys.argv[2]) else 200)
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def server(sick: Path, checks: str) -> str:
    return f"""
config: {{command: [python3, local/server.py, "${{PORT_http}}", {sick}]}}
files:
  - path: local/server.py
    content: |
{textwrap.indent(SERVER.strip(), "      ")}
kill_timeout: 1s
checks:
{textwrap.indent(checks.strip(), "  ")}
"""


def test_checks_that_fail_later_degrade_the_job_and_pass_again(up: Up) -> None:
    sick = up.folder / "sick"
    checks = f"""
- {{type: http, port: http, path: /, interval: 300ms}}
- {{type: tcp, port: http, interval: 300ms}}
- {{type: exec, command: [/bin/sh, -c, "test ! -e {sick}"], interval: 300ms}}
"""
    up.specs.write("web.yaml", service("web", server(sick, checks), "ports: [{name: http}]"))
    up.start()
    before = up.api.until_running("web", 1)
    sick.touch()
    up.api.until(lambda: up.api.job("web")["health"] == "Degraded")
    assert only(up, "web")["healthy"] is False
    assert "web.web[0]" in up.api.job("web")["reason"]
    sick.unlink()
    assert up.api.until_running("web", 1) == before
    assert only(up, "web")["tasks"]["web"]["restarts"] == 0


def test_a_check_restarts_the_task_after_so_many_failures(up: Up) -> None:
    sick = up.folder / "sick"
    checks = "- {type: http, port: http, path: /, interval: 300ms, restart_after: 2}"
    group = "ports: [{name: http}]\nrestart: {delay: 100ms, attempts: 50}"
    up.specs.write("web.yaml", service("web", server(sick, checks), group))
    up.start()
    before = up.api.until_running("web", 1)
    # On a busy machine it may not listen in time at first.
    begun = only(up, "web")["tasks"]["web"]["restarts"]
    sick.touch()
    up.api.until(lambda: only(up, "web")["tasks"]["web"]["restarts"] > begun)
    sick.unlink()
    after = up.api.until_running("web", 1)
    assert after["web.web[0]"][0] != before["web.web[0]"][0]
    assert any("status 500" in message for _, message in events(only(up, "web")))


def test_a_task_that_fails_is_restarted_then_given_up_and_placed_anew(up: Up) -> None:
    """`fail` after the attempts are used up; then `reschedule` makes another allocation of the same name."""
    runs = up.folder / "runs"
    up.specs.write(
        "flaky.yaml",
        service(
            "flaky",
            "config:\n"
            f'  command: [/bin/sh, -c, "echo run >> {runs}; test $(wc -l < {runs}) -gt 3 && exec sleep 3600; exit 3"]',
            "restart: {attempts: 2, delay: 100ms, mode: fail}\n"
            "reschedule: {unlimited: true, delay: 200ms, delay_function: constant}",
        ),
    )
    up.start()
    up.api.until(
        lambda: only(up, "flaky")["client_status"] == "running" and runs.read_text().count("run") > 3
    )
    held = only(up, "flaky")
    (failed,) = [one for one in up.api.allocations("flaky", wanted=False) if one["id"] != held["id"]]
    assert failed["client_status"] == "failed"
    assert (failed["desired_status"], failed["reason"]) == ("stop", "rescheduled")
    assert failed["tasks"]["flaky"]["restarts"] == 2
    assert failed["tasks"]["flaky"]["exit_code"] == 3
    assert any("restart 2 of 2" in message for _, message in events(failed))
    assert (held["name"], held["replaces"]) == (failed["name"], failed["id"])
    assert held["epoch"] > failed["epoch"]
    assert runs.read_text().count("run") == 4


def test_mode_delay_goes_on_with_the_same_allocation(up: Up) -> None:
    runs = up.folder / "runs"
    up.specs.write(
        "loop.yaml",
        service(
            "loop",
            f'config: {{command: [/bin/sh, -c, "echo run >> {runs}; exit 1"]}}',
            "restart: {attempts: 1, interval: 500ms, delay: 100ms, mode: delay}",
        ),
    )
    up.start()
    up.api.until(lambda: runs.exists() and runs.read_text().count("run") >= 4)
    (held,) = up.api.allocations("loop", wanted=False)
    assert held["client_status"] in {"running", "pending"}


def test_batch_jobs_end_by_their_exit_codes_and_run_again_by_restart_token(up: Up) -> None:
    text = """
        kind: Job
        name: {name}
        type: batch
        groups:
          - restart: {{attempts: 0}}
            reschedule: {{attempts: 0}}
            tasks:
              - config: {{command: [/bin/sh, -c, "echo out; echo err >&2; exit {code}"]}}
    """
    up.specs.write("good.yaml", text.format(name="good", code=0))
    up.specs.write("bad.yaml", text.format(name="bad", code=9))
    up.start()
    up.api.until(lambda: up.api.job("good")["status"] == "dead" and up.api.job("bad")["status"] == "dead")
    assert (up.api.job("good")["health"], up.api.job("bad")["health"]) == ("Healthy", "Degraded")
    good, bad = (up.api.allocations(name, wanted=False)[0] for name in ("good", "bad"))
    assert (good["client_status"], good["tasks"]["good"]["exit_code"]) == ("complete", 0)
    assert (bad["client_status"], bad["tasks"]["bad"]["exit_code"]) == ("failed", 9)
    assert up.command("logs", "good") == "out\n"
    assert up.command("logs", "bad", "--stderr") == "err\n"
    # Nothing but the wish to run it once more: it does, and the other does not.
    up.specs.write("good.yaml", textwrap.dedent(text).format(name="good", code=0) + 'restart_token: "1"\n')
    up.api.until(lambda: len(finished(up, "good")) == 2)
    assert len(up.api.allocations("bad", wanted=False)) == 1


def finished(up: Up, job: str) -> list[Json]:
    return [one for one in up.api.allocations(job, wanted=False) if one["client_status"] == "complete"]


def test_a_schedule_runs_at_once_for_a_restart_token_and_knows_its_next_time(up: Up) -> None:
    text = """
        kind: Job
        name: nightly
        type: batch
        schedule: {cron: "0 4 1 1 *"}
        groups:
          - tasks:
              - config: {command: [/bin/sh, -c, "echo ran"]}
    """
    up.specs.write("nightly.yaml", text)
    up.start()
    up.api.until(lambda: up.api.job("nightly")["sync"] == "Synced")
    job = up.api.job("nightly")
    assert (job["health"], job["schedule"]["last"]) == ("Healthy", None)
    assert "-01-01T04:00:00" in job["schedule"]["next"]
    assert up.api.allocations("nightly", wanted=False) == []
    up.specs.write("nightly.yaml", textwrap.dedent(text) + 'restart_token: "1"\n')
    (ran,) = up.api.until(lambda: finished(up, "nightly") or None)
    assert ran["run"] is not None
    assert up.command("logs", "nightly") == "ran\n"
    assert up.api.job("nightly")["health"] == "Healthy"


def test_logs_are_rotated_and_the_newest_are_kept(up: Up) -> None:
    task = """
config:
  command:
    - /bin/sh
    - -c
    - i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo line $i of many that are written here; done; echo end; sleep 3600
logs: {max_files: 2, max_size: 16KiB}
kill_timeout: 1s
"""
    up.specs.write("chatty.yaml", service("chatty", task))
    up.start()
    up.api.until_running("chatty", 1)
    lines = up.api.until(lambda: told(up, "end\n")).splitlines()
    assert lines[-2:] == ["line 3000 of many that are written here", "end"]
    assert lines[0] != "line 1 of many that are written here"
    assert len("\n".join(lines)) <= 2 * 16 * 1024
    assert up.command("logs", "chatty", "--tail", "1") == "end\n"


def told(up: Up, end: str) -> str | None:
    text = up.command("logs", "chatty")
    return text if text.endswith(end) else None


def test_logs_follow_until_the_task_ends(up: Up) -> None:
    gate = up.folder / "gate"
    up.specs.write(
        "talk.yaml",
        f"""
        kind: Job
        name: talk
        type: batch
        groups:
          - tasks:
              - config:
                  command: [/bin/sh, -c, "echo one; until test -e {gate}; do sleep 0.05; done; echo two"]
        """,
    )
    up.start()
    up.api.until(lambda: up.api.running("talk") or None)
    seen = up.folder / "followed"
    with seen.open("wb") as file:
        follower = subprocess.Popen(
            [str(TRUEUP), "logs", "-f", "talk", "--address", up.running.url],
            stdout=file,
            stderr=subprocess.DEVNULL,
            env=environment(),
        )
    try:
        eventually(lambda: seen.read_text() == "one\n")
        assert follower.poll() is None
        gate.touch()
        assert follower.wait(30) == 0
    finally:
        if follower.poll() is None:
            follower.kill()
            follower.wait()
    assert seen.read_text() == "one\ntwo\n"


def test_json_of_the_commands_is_what_the_api_says(up: Up) -> None:
    up.specs.write("one.yaml", service("one", "config: {command: [sleep, '3600']}\nkill_timeout: 1s"))
    up.start()
    up.api.until_running("one", 1)
    shown = json.loads(up.command("allocs", "-o", "json"))
    held = shown["items"] if isinstance(shown, dict) else shown
    assert [one["name"] for one in held] == ["one.one[0]"]
    assert held[0]["id"] == only(up, "one")["id"]
