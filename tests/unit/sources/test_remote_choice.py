"""Which of several remotes of one history is followed: a table over a small history.

a - b - c - d
     \\- x - y
m merges d and y;  r is a history of its own.
"""

import pytest

from trueup.sources.remote_choice import Seen, choose

HISTORY = {
    "a": "a",
    "b": "ab",
    "c": "abc",
    "d": "abcd",
    "x": "abx",
    "y": "abxy",
    "m": "abcdxym",
    "r": "r",
}


def seen(tips: str) -> list[Seen]:
    """`d` is a remote at d, `!` one that cannot be read, `(b)` a copy at b."""
    found: list[Seen] = []
    for word in tips.split():
        if word == "!":
            found.append(Seen(name=f"r{len(found)}", error=f"r{len(found)}: no route"))
        else:
            tip = word.strip("()")
            contains = frozenset(HISTORY[tip])
            found.append(Seen(name=f"r{len(found)}", tip=tip, contains=contains, copy=word.startswith("(")))
    return found


@pytest.mark.parametrize(
    ("applied", "tips", "followed", "states"),
    [
        # One remote: whatever it says, also after a rewritten history.
        (None, "b", 0, "followed"),
        ("b", "b", 0, "followed"),
        ("d", "b", 0, "followed"),
        ("b", "r", 0, "followed"),
        ("b", "!", None, "unreachable"),
        # The furthest ahead, the first of equal ones.
        ("b", "b c", 1, "behind followed"),
        ("b", "d c", 0, "followed behind"),
        ("b", "c c", 0, "followed current"),
        ("b", "a d c", 1, "behind followed behind"),
        (None, "b c", 1, "behind followed"),
        # One that lacks what is applied is behind, also when it moved on by itself or was rewritten.
        ("c", "b c", 1, "behind followed"),
        ("c", "b d", 1, "behind followed"),
        ("c", "y c", 1, "behind followed"),
        ("c", "y d", 1, "behind followed"),
        ("b", "r c", 1, "behind followed"),
        ("c", "m c", 0, "followed behind"),
        # Two that both moved are diverged and hold, until one contains the other.
        ("b", "c x", None, "diverged diverged"),
        ("b", "d y", None, "diverged diverged"),
        ("b", "c d y", None, "behind diverged diverged"),
        ("b", "b c x", None, "behind diverged diverged"),
        ("b", "a c x", None, "behind diverged diverged"),
        (None, "r b", None, "diverged diverged"),
        ("b", "m y", 0, "followed behind"),
        # One that cannot be read neither says nor stops anything.
        ("b", "! c", 1, "unreachable followed"),
        ("b", "! !", None, "unreachable unreachable"),
        ("c", "! b", None, "unreachable behind"),
        # A force-push is followed only where there is one: with two, the other may have what is applied.
        ("b", "r !", None, "behind unreachable"),
        ("b", "r r", None, "behind behind"),
        # A copy says nothing of its own, so that beside it one is still the only one.
        ("b", "b (b)", 0, "followed current"),
        ("b", "c (b)", 0, "followed behind"),
        ("b", "r (b)", 0, "followed behind"),
        ("b", "! (b)", None, "unreachable behind"),
        ("b", "! c (b)", 1, "unreachable followed behind"),
    ],
)
def test_choice(applied: str | None, tips: str, followed: int | None, states: str) -> None:
    choice = choose(applied, seen(tips))
    assert (choice.followed, " ".join(choice.states)) == (followed, states)
    assert bool(choice.reason) == (followed is None)


@pytest.mark.parametrize(
    ("applied", "tips", "words"),
    [
        ("b", "! (b)", "r0: no route"),
        ("b", "! !", "r0: no route; r1: no route"),
        ("b", "c x", "diverged: r0 at c and r1 at x; nothing changes until they are merged and pushed"),
        ("c", "! b", "no remote that can be read has the applied commit c (r1): merge it there and push"),
        ("c", "! b", "r0: no route"),
    ],
)
def test_the_reason_says_what_to_do(applied: str, tips: str, words: str) -> None:
    assert words in choose(applied, seen(tips)).reason
