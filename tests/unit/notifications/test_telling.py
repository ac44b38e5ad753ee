"""What is told when: only what lasts, once, and its end."""

import json
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from tests.builders import NOON
from trueup.models.job import SecretValue
from trueup.models.notice import Told
from trueup.models.template import Notification
from trueup.models.units import Duration
from trueup.notifications.causes import Cause, Key
from trueup.notifications.telling import MOST_TOLD, NOTHING_SEEN, Due, Hook, Notice, due, hooks, look, payload

SECOND = timedelta(seconds=1)
ALL = ("Degraded", "unplaced", "run-failed", "held", "node-down")
(HOOK,) = hooks([Notification(url="https://x", on=ALL, after=Duration(seconds=30))])


def a_cause(cause: str = "Degraded", job: str = "web", message: str = "failed: web.app[0]") -> Cause:
    return Cause(key=Key(cause, job), message=message, job=job)


class Story:
    """Seconds, what is wrong in each, and what one webhook hears; all that is told arrives."""

    def __init__(self, hook: Hook = HOOK) -> None:
        self.hook, self.seen, self.told = hook, NOTHING_SEEN, list[Told]()
        self.now = NOON
        self.heard: list[tuple[int, str, str]] = []

    def second(self, *causes: Cause) -> Due:
        self.seen = look(self.seen, {one.key: one for one in causes}, self.told, self.now)
        found = due(self.hook, self.seen, self.told, self.now)
        for notice in found.notices:
            if notice.status == "firing":
                self.told.append(notice.told)
            else:
                self.told.remove(notice.told)
            self.heard.append(((self.now - NOON) // SECOND, notice.status, notice.told.cause))
        self.now += SECOND
        return found

    def restart(self) -> None:
        """All but what is in the store is forgotten."""
        self.seen = NOTHING_SEEN


def test_what_lasts_is_told_once_and_its_end() -> None:
    """Told after 30 s, not again while it lasts or breaks off shortly, and over when it was away for 30 s."""
    story = Story()
    for _ in range(100):
        story.second(a_cause())
    for _ in range(29):
        story.second()
    story.second(a_cause())
    for _ in range(100):
        story.second()
    assert story.heard == [(30, "firing", "Degraded"), (160, "resolved", "Degraded")]


def test_what_comes_and_goes_is_not_told() -> None:
    """29 seconds wrong, one right, for ever."""
    story = Story()
    for second in range(600):
        story.second(*([] if second % 30 == 29 else [a_cause()]))
    assert story.heard == []


def test_it_says_when_to_look_again() -> None:
    """Without any change there is a next look while something may become due, and none else."""
    story = Story()
    assert story.second(a_cause()).next_at == NOON + 30 * SECOND
    for _ in range(30):
        found = story.second(a_cause())
    assert found.next_at is None
    assert story.second().next_at == story.now - SECOND + 30 * SECOND


def test_a_restart() -> None:
    """What was told is not told again, and the end of it is told although nobody saw it end."""
    story = Story()
    for _ in range(31):
        story.second(a_cause())
    story.restart()
    for _ in range(100):
        story.second(a_cause())
    story.restart()
    for _ in range(31):
        story.second()
    assert story.heard == [(30, "firing", "Degraded"), (161, "resolved", "Degraded")]


def test_the_more_precise_word() -> None:
    """Beside `unplaced` and `run-failed`, Degraded of the same job says nothing; alone or of another job it does."""
    story = Story()
    for _ in range(31):
        story.second(a_cause(), a_cause("unplaced"), a_cause(job="db"))
    assert story.heard == [(30, "firing", "Degraded"), (30, "firing", "unplaced")]
    assert {one.job for one in story.told if one.cause == "Degraded"} == {"db"}

    (only,) = hooks([Notification(url="https://x", on=("Degraded",))])
    story = Story(only)
    for _ in range(31):
        story.second(a_cause(), a_cause("unplaced"))
    assert story.heard == [(30, "firing", "Degraded")]


def test_too_much_at_once() -> None:
    """A cluster that falls over does not send thousands; when some are over, others follow."""
    story = Story()
    causes = [a_cause(job=f"job-{number:04}") for number in range(MOST_TOLD + 50)]
    for _ in range(40):
        story.second(*causes)
    assert len(story.heard) == MOST_TOLD
    for _ in range(40):
        story.second(*causes[100:])
    assert len(story.told) == MOST_TOLD - 50
    assert len({one.id for one in story.told}) == MOST_TOLD - 50


def test_webhooks_of_one_document() -> None:
    """One is known by address and secret: another `on` or place changes nothing, and the same twice is one."""
    first = Notification(url="https://x", secret="key", on=("held",))
    other = Notification(url=SecretValue(secret="hook"), on=("held",))
    again = Notification(url="https://x", secret="key", on=("Unknown",), after=Duration(seconds=5))
    assert [one.id for one in hooks([first, other])] == [one.id for one in hooks([other, again])][::-1]
    (both,) = hooks([first, again])
    assert (sorted(both.on), both.after) == (["Unknown", "held"], 5 * SECOND)


def test_a_cause_it_does_not_want_any_more() -> None:
    """What was told is over for the webhook as soon as `on` names it no more."""
    story = Story()
    for _ in range(31):
        story.second(a_cause())
    (less,) = hooks([Notification(url="https://x", on=("held",))])
    story.hook = less
    story.second(a_cause())
    assert story.heard[1:] == [(31, "resolved", "Degraded")]


def test_the_document() -> None:
    """What is sent: all a program needs, and a text for chats."""
    seen = look(NOTHING_SEEN, {a_cause().key: a_cause()}, [], NOON)
    (notice,) = due(HOOK, seen, [], NOON + timedelta(minutes=1)).notices
    document = payload(notice, cluster_id="c1", now=NOON + timedelta(minutes=1))
    assert document == {
        "version": 1,
        "id": notice.told.id,
        "status": "firing",
        "cause": "Degraded",
        "job": "web",
        "node": "",
        "title": "web: Degraded",
        "text": "web: Degraded: failed: web.app[0]",
        "message": "failed: web.app[0]",
        "since": "2026-06-01T12:00:00Z",
        "sent_at": "2026-06-01T12:01:00Z",
        "cluster_id": "c1",
    }


@given(st.text())
def test_nobody_is_called_by_a_text(message: str) -> None:
    """Whatever a message holds, the text calls nobody, is no markup, has no control characters, and is bounded."""
    told = Told(hook="h", cause="Invalid", id="1", message=message * 50 + "<!channel> @here", since=NOON)
    document = payload(Notice(status="firing", told=told), cluster_id="c", now=NOON)
    text = document["text"]
    assert len(text) <= 2100
    assert not set(text) & set("<>`\n\r\x1b")
    assert "@" not in text.replace("@\u200b", "")
    json.dumps(document)
