"""What is to be told to which webhook now: what lasts and was not told, and what was told and is over. Pure.

A cause counts once it was there for the webhook's `after` without a break, and is over once it was away for as long.
So what comes and goes says nothing, and what was told is told the end of.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import msgspec

from trueup.models.codec import to_canonical_json, to_plain
from trueup.models.job import SecretValue
from trueup.models.notice import Told
from trueup.models.template import Notification
from trueup.notifications.causes import Cause, Key

MOST_TOLD: Final = 200
"""So many open causes are told to one webhook; further ones once some of these are over."""
_MOST_TEXT: Final = 1000
_MORE_PRECISE: Final = ("unplaced", "run-failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """A webhook: *id* is the same as long as its address and secret are written the same."""

    id: str
    url: str | SecretValue
    secret: str
    on: frozenset[str]
    after: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was seen so far: causes that are there and since when, and since when others are gone."""

    present: Mapping[Key, tuple[Cause, datetime]]
    gone: Mapping[Key, datetime]


NOTHING_SEEN: Final = Seen(present={}, gone={})


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One thing to tell."""

    status: Literal["firing", "resolved"]
    told: Told


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """*notices*, the oldest first; *next_at*: when more may be due although nothing changes."""

    notices: tuple[Notice, ...]
    next_at: datetime | None


def hooks(notifications: Iterable[Notification]) -> list[Hook]:
    """The webhooks of the Cluster document; entries of one address and secret are one."""
    found: dict[str, Hook] = {}
    for one in notifications:
        identity = hashlib.sha256(to_canonical_json([to_plain(one.url), one.secret])).hexdigest()[:16]
        on, after = frozenset(one.on), timedelta(seconds=one.after.total_seconds())
        if identity in found:
            on, after = on | found[identity].on, min(after, found[identity].after)
        found[identity] = Hook(id=identity, url=one.url, secret=one.secret, on=on, after=after)
    return list(found.values())


def look(seen: Seen, causes: Mapping[Key, Cause], told: Iterable[Told], now: datetime) -> Seen:
    """What is seen now, with the times of what was seen before."""
    present = {
        key: (cause, seen.present[key][1] if key in seen.present else now) for key, cause in causes.items()
    }
    open_keys = {Key(one.cause, one.subject) for one in told}
    gone = {key: seen.gone.get(key, now) for key in open_keys if key not in causes}
    return Seen(present=present, gone=gone)


def due(hook: Hook, seen: Seen, told: Iterable[Told], now: datetime) -> Due:
    """What this webhook is to be told now. *told* is what any was told of."""
    open_ones = {Key(one.cause, one.subject): one for one in told if one.hook == hook.id}
    notices: list[Notice] = []
    waits: list[datetime] = []
    for key, one in open_ones.items():
        # What it does not want to hear of any more is over for it at once.
        over_at = seen.gone[key] + hook.after if key in seen.gone else None
        if key.cause not in hook.on or (over_at is not None and over_at <= now):
            notices.append(Notice(status="resolved", told=one))
        elif over_at is not None:
            waits.append(over_at)
    room = MOST_TOLD - len(open_ones)
    for key, (cause, since) in sorted(seen.present.items(), key=lambda item: (item[1][1], item[0])):
        if key in open_ones or not _wants(hook, key, seen):
            continue
        if since + hook.after > now:
            waits.append(since + hook.after)
        elif room > 0:
            room -= 1
            notices.append(Notice(status="firing", told=_told(hook, cause, since)))
    return Due(notices=tuple(notices), next_at=min(waits, default=None))


def payload(notice: Notice, *, cluster_id: str, now: datetime) -> dict[str, Any]:
    """The document that is sent; docs/howto/get-told.md describes it, and *version* counts its forms.

    *text* is for chats: nobody is called by an `@`, and nothing in it is markup.
    """
    told, over = notice.told, notice.status == "resolved"
    about = told.job or told.node or told.subject if told.cause != "held" else ""
    title = ": ".join(part for part in (about, told.cause) if part)
    text = f"{title} is over" if over else f"{title}: {told.message}"
    return {
        "version": 1,
        "id": told.id,
        "status": notice.status,
        "cause": told.cause,
        "job": told.job,
        "node": told.node,
        "title": _plain(title),
        "text": _plain(text),
        "message": told.message[:_MOST_TEXT],
        "since": msgspec.to_builtins(told.since),
        "sent_at": msgspec.to_builtins(now),
        "cluster_id": cluster_id,
    }


def _wants(hook: Hook, key: Key, seen: Seen) -> bool:
    """Whether it is told of this; Degraded says nothing beside a more precise word for the same job."""
    if key.cause not in hook.on:
        return False
    precise = [cause for cause in _MORE_PRECISE if cause in hook.on]
    return key.cause != "Degraded" or not any(Key(cause, key.subject) in seen.present for cause in precise)


def _told(hook: Hook, cause: Cause, since: datetime) -> Told:
    parts = [hook.id, cause.key.cause, cause.key.subject, since.isoformat()]
    return Told(
        hook=hook.id,
        cause=cause.key.cause,
        subject=cause.key.subject,
        id=hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32],
        job=cause.job,
        node=cause.node,
        message=cause.message[:_MOST_TEXT],
        since=since,
    )


_CALLING: Final = str.maketrans({"<": "‹", ">": "›", "@": "@\u200b", "`": "'"})


def _plain(text: str) -> str:
    shown = "".join(one if one.isprintable() else " " for one in text)
    return shown[:_MOST_TEXT].translate(_CALLING)
