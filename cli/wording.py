"""Sentences that several commands say alike: who asked for it, what is held, what found no room."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from cli.blocks import Block, ago, line
from cli.client import Client
from cli.views import RevisionView, UnplacedView, short_id, view
from trueup.models.reasons import NO_NODES, WAITS
from trueup.models.revision import Held


def find_revision(client: Client, identifier: str | None) -> RevisionView | None:
    """The revision of that id; None if the control plane no longer knows it."""
    if not identifier:
        return None
    found = client.list("/revisions", at_most=1, revision=identifier, reverse=True).body
    return view(found[0], RevisionView) if found else None


def revision_label(identifier: str) -> str:
    """What a revision is: a commit, or the content of a directory at a time."""
    return "Content" if identifier.startswith("dir-") else "Commit"


def commit_words(identifier: str | None, revision: RevisionView | None, now: datetime) -> str:
    """A revision, what it said and who made it: `1a2b3c4d "More web" by Ann <ann@example.org>, 3m ago`."""
    if not identifier:
        return "none yet"
    if revision is None:
        return short_id(identifier)
    words = short_id(identifier)
    if revision.subject:
        words += f' "{revision.subject}"'
    if identifier.startswith("dir-"):
        return f"{words}, seen {ago(revision.seen_at, now)} ago"
    if revision.author:
        words += f" by {revision.author}"
        if revision.author_email:
            words += f" <{revision.author_email}>"
    made_at = revision.committed_at or revision.seen_at
    return words if made_at is None else f"{words}, {ago(made_at, now)} ago"


def held_words(held: Held) -> str:
    """Why a revision is held and how to let it through, as one message of several lines."""
    from reconciler.hold import confirming_document  # what no command but a held one needs

    if not held.confirm:
        return f"revision {short_id(held.revision)} is held: {held.reason}."
    ends = f" It would end: {', '.join(held.removes)}." if held.removes else ""
    document = "".join(f"    {one}\n" for one in confirming_document(held).splitlines())
    return (
        f"revision {short_id(held.revision)} is held: {held.reason}.{ends}\n"
        f"To let exactly that happen, commit this document (or its confirm, where there is a Cluster document):\n"
        f"\n{document}"
    )


def held_blocks(held: Held) -> list[Block]:
    """`held_words` as lines."""
    return [
        line(one, "bad" if number == 0 else "") for number, one in enumerate(held_words(held).splitlines())
    ]


def unplaced_words(groups: Sequence[UnplacedView]) -> list[str]:
    """One line a group, as `unplaced_sentence` says it."""
    return [unplaced_sentence(group.group, group.count, group.reasons) for group in groups]


def unplaced_sentence(group: str, count: int, reasons: Mapping[str, int]) -> str:
    """`1 of app found no room: insufficient memory (2 nodes), port 9000 is taken (1 node)`, or what it waits for."""
    if reasons and all(reason.startswith(WAITS) for reason in reasons):
        names = ", ".join(sorted(reason.removeprefix(WAITS) for reason in reasons))
        return f"{count} of {group} {'waits' if count == 1 else 'wait'} for {names}"
    return f"{count} of {group} found no room: {reasons_words(reasons) or 'no node'}"


def reasons_words(reasons: Mapping[str, int]) -> str:
    """Reasons with the number of nodes that gave each, the most frequent first."""
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(
        reason if reason == NO_NODES else f"{reason} ({count} {'node' if count == 1 else 'nodes'})"
        for reason, count in ordered
    )
