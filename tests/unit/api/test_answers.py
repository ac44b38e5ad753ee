"""The fields the contract lists, and what every answer carries."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec

from api.app import ROUTES
from api.views.allocation import AllocationView
from api.views.node import NodeView
from tests.builders import NOON, a_group, a_job, a_node, an_allocation
from tests.unit.api.world import World, an_event
from trueup.models.deployment import Deployment, DeploymentGroup
from trueup.models.errors import SpecError
from trueup.models.evaluation import Evaluation, UnplacedGroup
from trueup.models.ids import DeploymentId, EvaluationId, NodeId, RevisionId
from trueup.models.job import Schedule
from trueup.models.node import NodeUse
from trueup.models.revision import ChangedJobs, Held, RemoteStatus, Revision, SourceStatus
from trueup.models.state_document import allocation_document, node_document, state_document
from trueup.models.template import Template
from trueup.models.units import Bytes, Millicores

JOB = "name type status priority version digest revision sync health reason groups spec"
GROUP = "name desired placed running healthy failed"
ALLOCATION = (
    "id name job group index node job_version revision node_id desired_status client_status reason tasks ports "
    "healthy deployment replaces replaced_by created_at modified_at"
)
TASK = "state failed restarts exit_code started_at finished_at events"
NODE = "id name region status eligible drain resources attributes labels drivers"
REVISION = "id parent author author_email subject committed_at seen_at applied_at state jobs errors"
STATUS = "revision sync health held source errors jobs allocations nodes index version cluster_id"


def assert_has(answer: dict[str, Any], fields: str) -> None:
    assert set(fields.split()) <= set(answer)


def test_job(world: World) -> None:
    """A job has every field of the contract, its spec in the form of a document."""
    web = a_job("web", count=2, cpu=0.25, memory="256MiB")
    world.put(web, a_node(), an_allocation(web))
    job = world.get("/jobs/web")
    assert_has(job, JOB)
    assert_has(job["groups"][0], GROUP)
    assert job["groups"] == [
        {"name": "app", "desired": 2, "placed": 1, "running": 1, "healthy": 1, "failed": 0}
    ]
    assert (job["health"], job["sync"], job["status"]) == ("Progressing", "Synced", "running")
    assert job["spec"]["groups"][0]["tasks"][0]["resources"] == {"cpu": 0.25, "memory": "256MiB"}
    assert job["place"] == {"file": "web.yaml", "line": 1, "root": 0}


def test_schedule_of_a_job(world: World) -> None:
    """A scheduled job tells its last and its next run."""
    world.put(a_job("report", type="batch", schedule=Schedule(cron="0 18 * * *")))
    assert world.get("/jobs/report")["schedule"] == {"last": None, "next": "2026-06-01T18:00:00Z"}


def test_unplaced_job(world: World) -> None:
    """What found no room is told with its reasons."""
    web = a_job("web")
    world.put(web)
    record = world.store.state.jobs["web"]
    unplaced = UnplacedGroup(group="app", count=1, reasons={"insufficient memory": 2})
    with world.store.transaction() as transaction:
        transaction.put_job(msgspec.structs.replace(record, unplaced=(unplaced,)))
    job = world.get("/jobs/web")
    assert job["unplaced"] == [{"group": "app", "count": 1, "reasons": {"insufficient memory": 2}}]
    assert "insufficient memory" in job["reason"]


def test_allocation(world: World) -> None:
    """An allocation has every field of the contract, and is what STATE.json says of it."""
    held = an_allocation(a_job("web"), a_node(), ports={"http": 20000})
    world.put(a_job("web"), a_node(), held)
    answer = world.get(f"/allocations/{held.id}")
    assert_has(answer, ALLOCATION)
    assert_has(answer["tasks"]["server"], TASK)
    assert answer == allocation_document(held)
    assert set(answer) == {field.encode_name for field in msgspec.structs.fields(AllocationView)}


def test_node(world: World) -> None:
    """A node is found by name and by id, and has every field of the contract: cores and MiB."""
    node = a_node("node-7", cpu=2.5, memory="8GiB", labels={"disk": "ssd"})
    world.put(node)
    answer = world.get("/nodes/node-7")
    assert_has(answer, NODE)
    assert answer == world.get("/nodes/id-node-7") == {**node_document(node), "used": None}
    assert answer["resources"] == {"cpu": 2.5, "memory": 8192}
    assert set(answer) == {field.encode_name for field in msgspec.structs.fields(NodeView)}


def test_what_is_in_use_of_a_node(make_world: Callable[..., World]) -> None:
    """Cores and MiB by its newest beat, in the list as well; the next beat is seen at the same index."""
    used = NodeUse(
        cpu_millicores=Millicores(1250),
        memory_bytes=Bytes(3 * 2**20),
        disk_bytes=Bytes(9 * 2**20),
        disk_free_bytes=Bytes(2**20),
    )
    said: dict[NodeId, NodeUse] = {}
    world = make_world(node_use=said.get)
    world.put(a_node())
    assert world.get("/nodes/node-1")["used"] is None
    said[NodeId("id-node-1")] = used
    shown = {"cpu": 1.25, "memory": 3, "disk": 9, "disk_free": 1}
    assert world.get("/nodes/node-1")["used"] == world.get("/nodes")["items"][0]["used"] == shown


def test_revision(world: World) -> None:
    """A revision has every field of the contract, with its errors by place."""
    error = SpecError(
        file="a.yaml", line=3, column=5, path="groups[0].cout", message="unknown key", hint="count?"
    )
    with world.store.transaction() as transaction:
        transaction.put_revision(
            Revision(
                id=RevisionId("r1"),
                author="Ann",
                seen_at=NOON,
                state="applied",
                jobs=ChangedJobs(created=("web",)),
                errors=(error,),
            )
        )
    answer = world.get("/revisions")["items"][0]
    assert_has(answer, REVISION)
    assert answer["jobs"] == {"created": ["web"], "updated": [], "removed": [], "invalid": []}
    assert answer["errors"] == [
        {
            "file": "a.yaml",
            "line": 3,
            "column": 5,
            "path": "groups[0].cout",
            "message": "unknown key",
            "hint": "count?",
        }
    ]


def test_evaluation(world: World) -> None:
    """Passes are listed of all jobs and of one."""
    with world.store.transaction() as transaction:
        for number, job in enumerate(("web", "db")):
            transaction.put_evaluation(
                Evaluation(
                    id=EvaluationId(str(number)), job=job, placed=1, created_at=NOON, trigger="revision"
                )
            )
    world.put(a_job("db"))
    assert [found["job"] for found in world.get("/evaluations")["items"]] == ["web", "db"]
    assert [found["id"] for found in world.get("/jobs/db/evaluations")["items"]] == ["1"]


def test_versions_and_deployments(world: World) -> None:
    """A job lists its versions and its rollouts."""
    world.put(a_job("web"))
    with world.store.transaction() as transaction:
        transaction.put_deployment(
            Deployment(
                id=DeploymentId("d1"),
                job="web",
                job_version=1,
                groups={"app": DeploymentGroup(desired_total=3)},
                created_at=NOON,
                modified_at=NOON,
            )
        )
    assert [found["version"] for found in world.get("/jobs/web/versions")["items"]] == [1]
    deployment = world.get("/jobs/web/deployments")["items"][0]
    assert deployment["groups"]["app"]["desired_total"] == 3
    assert deployment["status"] == "running"


def test_template(world: World) -> None:
    """A template tells which jobs are made from it."""
    web = a_job("web")
    world.put(web)
    with world.store.transaction() as transaction:
        transaction.put_template(
            Template(name="base", parameters={"count": {"type": "integer"}}, job={"groups": []})
        )
        transaction.put_job(msgspec.structs.replace(world.store.state.jobs["web"], template="base"))
    assert world.get("/templates/base") == {
        "name": "base",
        "parameters": {"count": {"type": "integer"}},
        "job": {"groups": []},
        "jobs": ["web"],
    }
    assert [found["name"] for found in world.get("/templates")["items"]] == ["base"]


def test_status(world: World) -> None:
    """The whole in one answer: words, sums by word, what is held, every error, and the source."""
    web, node = a_job("web"), a_node()
    world.put(web, node, an_allocation(web, node), an_allocation(web, node, index=1, client_status="failed"))
    held = Held(revision=RevisionId("r2"), reason="it ends all", removes=("web",), confirm="abc")
    with world.store.transaction() as transaction:
        transaction.set_revision(RevisionId("r1"), held)
        transaction.set_errors((SpecError(file="b.yaml", message="cannot be parsed"),))
        transaction.set_source(
            SourceStatus(
                kind="git",
                url="https://x/y.git",
                last_success_at=NOON,
                paths=("specs",),
                remotes=(
                    RemoteStatus(
                        url="https://x/y.git",
                        state="followed",
                        commit=RevisionId("r1"),
                        last_success_at=NOON,
                    ),
                    RemoteStatus(
                        url="/data/emergency.git", state="unreachable", error="gone", emergency=True
                    ),
                ),
            )
        )
    answer = world.get("/status")
    assert_has(answer, STATUS)
    assert answer["sync"] == "Invalid"
    assert answer["held"] == {"revision": "r2", "reason": "it ends all", "removes": ["web"], "confirm": "abc"}
    assert answer["jobs"]["Degraded"] == 1
    assert (answer["allocations"]["running"], answer["allocations"]["failed"]) == (1, 1)
    assert answer["nodes"] == {"ready": 1, "down": 0, "disconnected": 0, "incompatible": 0}
    assert answer["errors"][0]["file"] == "b.yaml"
    assert answer["source"] == {
        "kind": "git",
        "url": "https://x/y.git",
        "last_success_at": "2026-06-01T12:00:00Z",
        "error": "",
        "paths": ["specs"],
        "remotes": [
            {
                "url": "https://x/y.git",
                "state": "followed",
                "commit": "r1",
                "last_success_at": "2026-06-01T12:00:00Z",
                "error": "",
                "emergency": False,
            },
            {
                "url": "/data/emergency.git",
                "state": "unreachable",
                "commit": None,
                "last_success_at": None,
                "error": "gone",
                "emergency": True,
            },
        ],
    }
    assert answer["index"] == world.index


def test_status_follows_the_store(world: World) -> None:
    """The sums are those of the newest index, not of the first that was asked for."""
    assert world.get("/status")["jobs"]["Missing"] == 0
    world.put(a_job("web"))
    assert world.get("/status")["jobs"]["Missing"] == 1


def test_last_success_moves_without_an_index(world: World) -> None:
    """The time of the source's last success is the newest, though it changes no index."""
    world.get("/status")
    world.store.state.source = SourceStatus(last_success_at=NOON + timedelta(minutes=1))
    assert world.get("/status")["source"]["last_success_at"] == "2026-06-01T12:01:00Z"


def test_the_live_source_status_is_shown_everywhere(make_world: Callable[..., World]) -> None:
    """The store learns of the source only when it fails or recovers; what is shown is how it does right now."""
    live = SourceStatus(kind="git", last_success_at=NOON - timedelta(minutes=3), error="no answer")
    world = make_world(source_status=lambda: live)
    assert world.get("/status")["source"]["error"] == "no answer"
    assert "no answer" in world.client.get("/").text
    assert "trueup_source_up 0.0" in world.client.get("/metrics").text


def test_the_last_success_before_a_restart_is_shown_until_there_is_a_newer_one(
    make_world: Callable[..., World],
) -> None:
    """A control plane that starts while the source is away still says how old what it knows is."""
    live = SourceStatus(kind="git", url="https://git.example/specs", error="no answer")
    world = make_world(source_status=lambda: live)
    world.store.state.source = SourceStatus(kind="git", url=live.url, last_success_at=NOON)
    assert world.get("/status")["source"]["last_success_at"] == "2026-06-01T12:00:00Z"
    world.store.state.source = SourceStatus(kind="git", url="elsewhere", last_success_at=NOON)
    assert world.get("/status")["source"]["last_success_at"] is None


def test_state_is_the_document_of_one_index(world: World) -> None:
    """`/state` streams exactly `state_document`."""
    web, node = a_job("web", count=500), a_node()
    world.put(web, node, *(an_allocation(web, node, index=index) for index in range(450)))
    answer = world.get("/state")
    assert answer == state_document(world.store.state, NOON)
    assert len(answer["allocations"]) == 450


def test_state_of_an_empty_store(world: World) -> None:
    """An empty store has a STATE.json too."""
    assert world.get("/state")["allocations"] == []


def test_state_beside_writes(world: World) -> None:
    """A state that changes while it is streamed changes nothing of what is streamed."""
    web, node = a_job("web", count=500), a_node()
    world.put(web, node, *(an_allocation(web, node, index=index) for index in range(450)))
    answer = world.client.get("/state")
    chunks = answer.iter_encoded()
    first = next(chunks)
    world.put(an_allocation(web, node, index=470))
    document = msgspec.json.decode(first + b"".join(chunks))
    assert str(document["index"]) == answer.headers["X-Index"]
    assert len(document["allocations"]) == 450


def test_index_on_every_answer(world: World) -> None:
    """Every answer carries `X-Index`, errors too."""
    world.put(a_job("web"))
    for path in [
        "/jobs",
        "/jobs/none",
        "/nothing",
        "/",
        "/metrics",
        "/healthz",
        "/page/page.css",
        "/jobs?limit=0",
    ]:
        assert world.client.get(path).headers["X-Index"] == str(world.index)
    assert world.client.delete("/jobs/web").headers["X-Index"] == str(world.index)
    assert world.client.post("/heartbeat").headers["X-Index"] == str(world.index)


def test_head_is_get_without_a_body(world: World) -> None:
    """HEAD answers as GET, without a body, also where GET would stream."""
    for path in [route.path for route in ROUTES if route.method == "GET" and not list(route.variables)]:
        for accept in ("*/*", "text/event-stream"):
            answer = world.client.head(path, headers={"Accept": accept})
            assert (path, answer.status_code, answer.data) == (path, 200, b"")


def test_safe_headers(world: World) -> None:
    """Every answer has a strict CSP, forbids sniffing and framing, and allows no other origin."""
    for path in ["/", "/jobs", "/nothing", "/allocations/x/logs"]:
        headers = world.client.get(path, headers={"Origin": "https://evil.example"}).headers
        assert headers["Content-Security-Policy"].startswith("default-src 'self'")
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert not [name for name, _ in headers if name.startswith("Access-Control")]


def test_ready_and_healthy(world: World) -> None:
    """A server whose store can be written is ready, whatever its source does."""
    with world.store.transaction() as transaction:
        transaction.set_source(SourceStatus(error="no such remote"))
    assert world.get("/healthz") == world.get("/readyz") == {"status": "ok"}


def test_removed_job(world: World) -> None:
    """A job whose document is gone is shown as such until it is forgotten."""
    web = a_job("web", groups=(a_group(count=1),))
    world.put(web, an_event())
    with world.store.transaction() as transaction:
        transaction.put_job(msgspec.structs.replace(world.store.state.jobs["web"], removed=True))
    job = world.get("/jobs/web")
    assert (job["removed"], job["status"], job["groups"][0]["desired"]) == (True, "dead", 0)
    assert sum(world.get("/status")["jobs"].values()) == 0
