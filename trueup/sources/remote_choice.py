"""Which of several remotes of one history is followed. Pure: from tips and their ancestry to a decision.

Followed is the one whose history contains the applied commit and is furthest ahead. One that lacks it is behind; two
that both moved on from it are diverged, and nothing is followed until one contains the other.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from trueup.models.revision import RemoteState

_SHORT: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is known of a remote. *contains* are those of the commits asked about that its tip's history holds.

    *error* is set while it cannot be read, and then nothing else counts. A *copy* has nothing of its own to say: it is
    what was put there of another remote.
    """

    name: str
    tip: str = ""
    contains: frozenset[str] = frozenset()
    error: str = ""
    copy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The number of the remote to follow, None with the *reason*; and the state of each."""

    followed: int | None
    states: tuple[RemoteState, ...]
    reason: str = ""


def choose(applied: str | None, remotes: Sequence[Seen]) -> Choice:
    """Which remote to follow. A history that was rewritten is followed where there is no other remote to ask."""
    own = [number for number, remote in enumerate(remotes) if not remote.copy]
    active = [number for number in own if not remotes[number].error]
    if not active:
        return _none(remotes, "; ".join(remotes[number].error for number in own))
    if len(own) == 1:
        return _follow(remotes, active[0])
    able = [number for number in active if applied is None or applied in remotes[number].contains]
    if not able:
        return _none(remotes, _none_has(applied or "", remotes, own))
    furthest = [number for number in able if _is_ahead_of_all(remotes[number], remotes, able)]
    if furthest:
        return _follow(remotes, furthest[0])
    apart = [number for number in able if not _is_within_another(number, remotes, able)]
    return _none(remotes, _moved_apart(remotes, apart), apart=apart)


def _is_ahead_of_all(remote: Seen, remotes: Sequence[Seen], able: Sequence[int]) -> bool:
    return all(remotes[number].tip in remote.contains for number in able)


def _is_within_another(number: int, remotes: Sequence[Seen], able: Sequence[int]) -> bool:
    tip = remotes[number].tip
    return any(tip != remotes[other].tip and tip in remotes[other].contains for other in able)


def _follow(remotes: Sequence[Seen], followed: int) -> Choice:
    tip = remotes[followed].tip
    states: list[RemoteState] = []
    for number, remote in enumerate(remotes):
        if number == followed:
            states.append("followed")
        elif remote.error:
            states.append("unreachable")
        else:
            states.append("current" if remote.tip == tip else "behind")
    return Choice(followed=followed, states=tuple(states))


def _none(remotes: Sequence[Seen], reason: str, *, apart: Collection[int] = ()) -> Choice:
    states: list[RemoteState] = []
    for number, remote in enumerate(remotes):
        if remote.error:
            states.append("unreachable")
        else:
            states.append("diverged" if number in apart else "behind")
    return Choice(followed=None, states=tuple(states), reason=reason)


def _moved_apart(remotes: Sequence[Seen], apart: Sequence[int]) -> str:
    tips = " and ".join(f"{remotes[number].name} at {remotes[number].tip[:_SHORT]}" for number in apart)
    return (
        f"the remotes have diverged: {tips}; nothing changes until they are merged and pushed to one of them"
    )


def _none_has(applied: str, remotes: Sequence[Seen], own: Sequence[int]) -> str:
    dead = "".join(f"; {remotes[number].error}" for number in own if remotes[number].error)
    lacking = ", ".join(remotes[number].name for number in own if not remotes[number].error)
    return (
        f"no remote that can be read has the applied commit {applied[:_SHORT]} ({lacking}): merge it there and push;"
        f" a rewritten history is followed only where it is the only remote{dead}"
    )
