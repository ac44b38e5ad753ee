"""What `trueup wait` makes of what it sees."""

from typing import Any

import pytest

from cli.verdicts import (
    Verdict,
    all_of,
    done,
    failed,
    judge_drained,
    judge_errors,
    judge_job,
    judge_revision,
    waiting,
)
from cli.views import AllocationView, DeploymentView, JobView, NodeView, RevisionView, StatusView, view
from tests.unit.cli.canned import (
    COMMIT,
    NOON,
    a_deployment,
    a_job,
    a_node,
    a_revision,
    a_status,
    a_task,
    an_allocation,
)

OLDER, NEWER, STRANGE = "a" * 40, "b" * 40, "c" * 40
ORDER = [OLDER, COMMIT, NEWER]


def is_ancestor(older: str, newer: str) -> bool | None:
    """A straight history of three commits."""
    if older not in ORDER or newer not in ORDER:
        return None
    return ORDER.index(older) <= ORDER.index(newer)


def judge(wanted: str, known: dict[str, Any] | None = None, **status: Any) -> Verdict:
    return judge_revision(
        wanted,
        view(a_status(**status), StatusView),
        None if known is None else view(known, RevisionView),
        is_ancestor,
    )


@pytest.mark.parametrize(
    ("verdict", "kind", "words"),
    [
        (judge(COMMIT), "done", ""),
        (judge(OLDER), "done", ""),
        (judge(NEWER), "waiting", "is not seen yet"),
        (judge(NEWER, a_revision(NEWER, state="pending", applied_at=None)), "waiting", "is not yet applied"),
        (judge(STRANGE), "waiting", "is not seen yet"),
        (judge(STRANGE, a_revision(STRANGE)), "done", ""),
        (
            judge(NEWER, a_revision(NEWER)),
            "failed",
            "was applied, but 1a2b3c4d is, which does not contain it",
        ),
        (
            judge(NEWER, a_revision(NEWER, state="invalid", errors=[{"message": "no"}])),
            "failed",
            "has 1 error",
        ),
        (
            judge(NEWER, source={"kind": "git", "url": "", "last_success_at": NOON, "error": "no route"}),
            "waiting",
            "the source cannot be read: no route",
        ),
        (
            judge(COMMIT, revision=OLDER, held={"revision": NEWER, "reason": "too much", "confirm": "x"}),
            "failed",
            "is held: too much",
        ),
        # Applied, and a later one is held: that is somebody else's trouble.
        (judge(OLDER, held={"revision": NEWER, "reason": "too much", "confirm": "x"}), "done", ""),
        (
            judge(
                STRANGE, a_revision(STRANGE), held={"revision": NEWER, "reason": "too much", "confirm": "x"}
            ),
            "done",
            "",
        ),
        # Invalid then, and a later one that contains it is applied.
        (judge(OLDER, a_revision(OLDER, state="invalid", errors=[{"message": "no"}])), "done", ""),
        # Held itself, though it was applied before.
        (
            judge(NEWER, a_revision(NEWER), held={"revision": NEWER, "reason": "too much", "confirm": "x"}),
            "failed",
            "is held: too much",
        ),
        (judge("dir-1", revision="dir-1"), "done", ""),
        (judge("dir-1", revision="dir-2"), "waiting", "not seen yet"),
    ],
)
def test_whether_a_revision_is_applied(verdict: Verdict, kind: str, words: str) -> None:
    """Applied, or an ancestor of what is; failed at once when that will never be."""
    assert verdict.kind == kind
    assert words in verdict.words


def test_errors_that_a_later_revision_mended_count_no_more() -> None:
    """Of a revision with errors, those fail it that what is applied now still has."""
    errors = [{"file": "a.yaml", "line": line, "message": "is wrong"} for line in (3, 3)]
    errors[1]["file"] = "b.yaml"
    known = view(a_revision(COMMIT, errors=errors), RevisionView)
    moved = {**errors[0], "line": 7}
    still = judge_errors(known, view(a_status(errors=[moved]), StatusView))
    assert still.kind == "failed"
    assert "has 1 error:\n  a.yaml:3:0: is wrong" in still.words
    assert judge_errors(known, view(a_status(), StatusView)) == done()


def job(
    rollout: dict[str, Any] | None = None, allocations: list[dict[str, Any]] | None = None, **fields: Any
) -> Verdict:
    return judge_job(
        view(a_job(**fields), JobView),
        None if rollout is None else view(rollout, DeploymentView),
        [view(one, AllocationView) for one in allocations or []],
    )


CANARIES = {
    "desired_total": 3,
    "desired_canaries": 1,
    "promoted": False,
    "placed": 1,
    "healthy": 1,
    "unhealthy": 0,
}
FAILED_TASK = a_task(
    state="dead", failed=True, exit_code=3, events=[{"at": NOON, "type": "x", "message": "boom"}]
)


@pytest.mark.parametrize(
    ("verdict", "kind", "words"),
    [
        (job(), "done", ""),
        (job(health="Suspended"), "done", ""),
        (job(sync="Invalid", reason="has errors"), "failed", "web is Invalid: has errors"),
        (job(sync="OutOfSync", reason="frozen"), "failed", "web is OutOfSync: frozen"),
        (job(sync="OutOfSync", reason="not yet planned"), "waiting", "not yet planned"),
        (job(sync="Unknown", reason="no route"), "waiting", "web is Unknown"),
        (job(health="Progressing"), "waiting", "web is Progressing"),
        (job(a_deployment(), health="Progressing"), "waiting", "version 4 is being rolled out"),
        (
            job(a_deployment(status="failed", reason="deadline"), health="Degraded"),
            "failed",
            "failed: deadline",
        ),
        (job(a_deployment(status="failed", job_version=3), health="Degraded"), "waiting", "web is Degraded"),
        (
            job(a_deployment(groups={"app": CANARIES}), health="Progressing"),
            "done",
            'commit `update: {promote: "0123456789abcdef"}`',
        ),
        (
            job(
                None,
                [an_allocation(client_status="failed", tasks={"server": FAILED_TASK})],
                health="Degraded",
                type="system",
                spec={**a_job()["spec"], "type": "system"},
            ),
            "failed",
            "web.app[0] on node-1: task server failed with exit code 3, boom",
        ),
        (
            job(
                a_deployment(),
                [an_allocation(client_status="failed", tasks={"server": FAILED_TASK})],
                health="Degraded",
                type="system",
                spec={**a_job()["spec"], "type": "system"},
            ),
            "failed",
            "web.app[0] on node-1: task server failed with exit code 3, boom",
        ),
        (
            job(None, [an_allocation(client_status="failed")], health="Degraded"),
            "waiting",
            "web is Degraded",
        ),
        (job(removed=True, status="running"), "waiting", "web is stopping"),
        (job(removed=True, status="dead"), "done", ""),
    ],
)
def test_whether_a_job_is_synced_and_healthy(verdict: Verdict, kind: str, words: str) -> None:
    """An older Degraded is waited out, a failure of this very version is not."""
    assert verdict.kind == kind
    assert words in verdict.words


def test_a_later_commit_is_held() -> None:
    """Then the job is as the commit that is waited for has it."""
    held = view(a_job(sync="OutOfSync", reason="held: too much"), JobView)
    assert judge_job(held, None, []).kind == "failed"
    assert judge_job(held, None, [], later_is_held=True) == done()


def test_several_together() -> None:
    """One failure fails all, one that waits keeps all waiting."""
    assert all_of([done(), failed("a"), waiting("b"), failed("c")]) == failed("a; c")
    assert all_of([done("x"), waiting("b")]) == waiting("b")
    assert all_of([done("x"), done(), done("y")]) == done("x\ny")


def test_a_node_is_empty_once_what_it_holds_has_ended() -> None:
    """What was told to stop still counts until it has."""
    node = view(a_node(drain={"deadline": "1h", "started_at": NOON}), NodeView)
    stopping = view(an_allocation(desired_status="stop"), AllocationView)
    ended = view(an_allocation(desired_status="stop", client_status="complete"), AllocationView)
    assert judge_drained(node, [stopping]).kind == "waiting"
    assert judge_drained(node, [ended]) == done("node node-1 is empty")
