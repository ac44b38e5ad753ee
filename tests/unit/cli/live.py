"""A real control plane's reading half for the commands: store, API, socket; what agents would report is written in."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from api.app import create_app
from api.doors import ApiDeps, LogsUnavailable
from cli.system import RandomIds, SystemClock
from metastore.store import SqlStore
from tests.builders import a_job, a_node, a_record, a_version, an_allocation
from trueup.models.evaluation import Evaluation, Event
from trueup.models.ids import AllocationId, EvaluationId, RevisionId
from trueup.models.job import Job
from trueup.models.node import Node
from trueup.models.revision import ChangedJobs, Revision, SourceStatus
from trueup.serving import HttpServer

COMMIT = RevisionId("1a2b3c4d" + "0" * 32)


class WrittenLogs:
    """Every task wrote the same two lines."""

    @contextmanager
    def logs(
        self, node: Node, allocation_id: AllocationId, params: Mapping[str, str]
    ) -> Iterator[Iterator[bytes]]:
        if params.get("stream") == "stderr":
            raise LogsUnavailable(404, "nothing was written to stderr")
        yield iter((b"one\n", b"\x1b[31mtwo\n"))


class LiveControlPlane:
    """Store and server; `fill` puts a healthy job of three on one node, asked for by a commit of Ann's."""

    def __init__(self, folder: Path) -> None:
        self.store = SqlStore.open(folder, SystemClock(), RandomIds())
        self._stopping = threading.Event()
        deps: Any = {"membership": None, "logs": WrittenLogs()}
        app = create_app(
            ApiDeps(
                store=self.store,
                clock=SystemClock(),
                cluster_token=lambda: "cluster-token",
                stopping=self._stopping,
                **deps,
            )
        )
        self._server = HttpServer(
            app, ("127.0.0.1", 0), stopping=self._stopping, on_stop=self.store.wake_all, watch_cap=8
        )
        self._server.start()
        self.url = self._server.url

    def fill(self, job: Job | None = None) -> None:
        job, node, now = job or a_job(count=3), a_node(labels={"disk": "ssd"}), now_utc()
        with self.store.transaction() as transaction:
            transaction.put_node(node)
            transaction.put_version(a_version(job))
            transaction.put_job(msgspec.structs.replace(a_record(job), revision=COMMIT))
            for index in range(3):
                made = an_allocation(
                    job, node, index=index, id=f"{index:08x}{'a' * 24}", created_at=now - timedelta(minutes=5)
                )
                transaction.put_allocation(msgspec.structs.replace(made, revision=COMMIT))
            transaction.put_revision(a_revision(now))
            transaction.set_revision(COMMIT, None)
            transaction.set_source(
                SourceStatus(kind="git", url="https://git.example.org/ops", last_success_at=now)
            )
            transaction.put_event(
                Event(at=now, type="RevisionApplied", message="revision 1a2b3c4d applied", revision=COMMIT)
            )
            transaction.put_evaluation(
                Evaluation(
                    id=EvaluationId("e" * 32), job=job.name, placed=3, trigger="revision", created_at=now
                )
            )

    def close(self) -> None:
        self._server.stop()
        self.store.close()


def a_revision(now: datetime, **fields: Any) -> Revision:
    """An applied commit of Ann's that created web."""
    return Revision(
        **{
            "id": COMMIT,
            "author": "Ann",
            "author_email": "ann@example.org",
            "subject": "More web",
            "committed_at": now,
            "seen_at": now,
            "applied_at": now,
            "state": "applied",
            "jobs": ChangedJobs(created=("web",)),
            **fields,
        }
    )


def now_utc() -> datetime:
    """The machine's clock: ages are relative to it."""
    return SystemClock().now()
