"""What is refused: problems in one form, and what to change instead."""

import logging
from typing import Any

import pytest

from api.hints import hint_for
from tests.builders import a_job, a_node, an_allocation
from tests.unit.api.world import World


def problem(answer: Any) -> dict[str, Any]:
    """The problem an answer tells, in the form of RFC 9457."""
    assert answer.content_type == "application/problem+json"
    assert set(answer.json) == {"type", "title", "status", "detail"}
    assert answer.json["status"] == answer.status_code
    found: dict[str, Any] = answer.json
    return found


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/jobs/none",
        "/jobs/none/versions",
        "/allocations/none",
        "/nodes/none",
        "/templates/none",
        "/services/none",
        "/page/none",
        "/allocations/none/logs",
    ],
)
def test_not_found(world: World, path: str) -> None:
    """What is not there is a problem that says where to look."""
    assert problem(world.client.get(path))["status"] == 404


def test_delete_of_a_job(world: World) -> None:
    """Deleting a job is refused with the document to remove."""
    world.put(a_job("web"))
    answer = world.client.delete("/jobs/web")
    assert problem(answer)["detail"] == "remove the document of job web, web.yaml:1, from the source"
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"])
def test_any_other_method(world: World, method: str) -> None:
    """Every method but GET and HEAD is 405, with `Allow` and what to do instead."""
    for path in [
        "/jobs",
        "/jobs/web",
        "/nodes/node-1",
        "/allocations",
        "/templates/base",
        "/status",
        "/",
        "/state",
    ]:
        answer = world.client.open(path, method=method)
        assert answer.status_code == 405
        assert answer.headers["Allow"] == "GET, HEAD"
        assert "source" in problem(answer)["detail"]


@pytest.mark.parametrize(
    ("verb", "edit"),
    [
        ("restart", "restart_token"),
        ("scale", "count"),
        ("stop", "suspended: true"),
        ("promote", "update.promote: "),
    ],
)
def test_verbs_people_try(world: World, verb: str, edit: str) -> None:
    """What people try on a job is answered with the edit to commit, naming file and line."""
    world.put(a_job("web"))
    answer = world.client.post(f"/jobs/web/{verb}")
    assert answer.status_code == 405
    assert edit in problem(answer)["detail"]
    assert "web.yaml:1" in problem(answer)["detail"]


def test_hints_name_what_they_are_about(world: World) -> None:
    """An allocation is led back to its job, a node by id to its name, all jobs to an emptied tree."""
    web, node = a_job("web"), a_node("node-7")
    held = an_allocation(web, node)
    world.put(web, node, held)
    assert "web.yaml:1" in problem(world.client.delete(f"/allocations/{held.id}"))["detail"]
    assert "`name: node-7`" in problem(world.client.post(f"/nodes/{node.id}/drain"))["detail"]
    assert "confirm" in problem(world.client.post("/test/clear-all"))["detail"]
    assert "`name: db`" in problem(world.client.put("/jobs/db"))["detail"]


def test_get_of_a_verb(world: World) -> None:
    """Reading what is no resource is 404, not 405."""
    assert world.client.get("/jobs/web/restart").status_code == 404


def test_agents_endpoints_are_not_for_reading(world: World) -> None:
    """GET of an agents' endpoint says whom it is for."""
    answer = world.client.get("/register")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
    assert "agents" in problem(answer)["detail"]


def test_notify_is_off(world: World) -> None:
    """Without a secret for it, `/notify` is 404 with the reason."""
    assert "secret" in problem(world.client.post("/notify", data=b"{}"))["detail"]


def test_a_fault_of_ours(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A fault is a problem without its insides, which go to the log."""
    world.app.view_functions["GET /jobs"] = lambda: 1 / 0  # type: ignore[assignment]
    with caplog.at_level(logging.ERROR):
        answer = world.client.get("/jobs")
    assert answer.status_code == 500
    assert "division" not in answer.text
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("name", ["<script>alert(1)", "a\x1b[31mb", "\u202egnp.exe", "ü" * 300])
def test_hostile_names(world: World, name: str) -> None:
    """Names that are asked for come back as data: quoted JSON, never a header or markup."""
    answer = world.client.get(f"/jobs/{name}")
    assert answer.status_code == 404
    assert "\x1b" not in answer.text
    assert problem(answer)["detail"].startswith("there is no job")
    assert world.client.delete(f"/jobs/{name}").status_code == 405


def test_path_that_says_nothing(world: World) -> None:
    """A path we know nothing of gets no hint."""
    assert hint_for(world.store.state, "PUT", "/etc/passwd") is None
    assert world.client.put("/etc/passwd").status_code == 404
