"""Filters over all nodes, in the order of their rows: who passes, and whom each refuses for which reason. Pure.

They are kept by what they ask. When a node changes, each asks that node again and no other: one whose answer stays the
same stays the same object, and so does all that was worked out from it.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

import msgspec
import numpy as np

from reconciler.columns import Codes, Column, Mask
from reconciler.kept import Kept
from trueup.models.node import Node
from trueup.models.reasons import Reason

Ask: TypeAlias = Callable[[Node, Mapping[str, str]], Reason | None]
"""Why a node with its attributes is refused; None if it passes."""
NodeRow: TypeAlias = tuple[int, Node, Mapping[str, str]]
"""A node's row, itself and its attributes."""
_NEVER: Final = -np.inf


class Gate(msgspec.Struct, frozen=True, gc=False):
    """One filter over all nodes: who passes, and whom it refuses for which reason."""

    passes: Mask
    refusals: tuple[tuple[Reason, Mask], ...]


class Passing(NamedTuple):
    """Which rows pass *gates*; *bar* says the same to be added to points: 0, or minus infinity."""

    gates: tuple[Gate, ...]
    mask: Mask
    bar: Column


class _Asked(NamedTuple):
    gate: Gate
    ask: Ask


class Gates:
    """At most *most* gates over the same nodes, by what they ask."""

    def __init__(self, most: int) -> None:
        self._asked: Kept[_Asked] = Kept(most)

    def of(self, key: Hashable, rows: Callable[[], Iterable[NodeRow]], ask: Callable[[], Ask]) -> Gate:
        """The gate kept under *key*, which says all that is asked, or one that asks all *rows* what *ask* makes."""
        return self._asked.of(key, lambda: _asked(rows(), ask())).gate

    def ask_again(self, rows: Sequence[NodeRow]) -> None:
        """Takes in that the nodes of *rows* changed."""
        for key, (gate, ask) in self._asked.items():
            now = _asked_again(gate, ask, rows)
            if now is not gate:
                self._asked.put(key, _Asked(now, ask))


def passing(gates: tuple[Gate, ...]) -> Passing:
    """Who passes all of *gates*, of which there is at least one."""
    mask = np.logical_and.reduce([one.passes for one in gates])
    return Passing(gates, mask, np.where(mask, 0.0, _NEVER))


def gate_of(reasons: Sequence[Reason | None], codes: Codes | None = None) -> Gate:
    """A gate from each row's reason, None where it passes; with *codes*, from the reason under each row's code."""
    rows = np.arange(len(reasons)) if codes is None else codes
    numbers = {
        kind: number for number, kind in enumerate(sorted({one for one in reasons if one is not None}))
    }
    answers = np.array([len(numbers) if one is None else numbers[one] for one in reasons], dtype=np.int64)[
        rows
    ]
    return Gate(answers == len(numbers), tuple((kind, answers == number) for kind, number in numbers.items()))


def refused(gates: Sequence[Gate], among: Mask) -> Iterator[tuple[Reason, int]]:
    """Of the rows *among*, how many each gate is the first to refuse, by reason; *among* is left as who passes all."""
    for gate in gates:
        for reason, mask in gate.refusals:
            number = int(np.count_nonzero(mask & among))
            if number:
                yield reason, number
        among &= gate.passes


def _asked(rows: Iterable[NodeRow], ask: Ask) -> _Asked:
    return _Asked(gate_of([ask(node, held) for _, node, held in rows]), ask)


def _asked_again(gate: Gate, ask: Ask, rows: Sequence[NodeRow]) -> Gate:
    changed = [(row, now) for row, node, held in rows if (now := ask(node, held)) != _reason_at(gate, row)]
    if not changed:
        return gate
    passes = gate.passes.copy()
    refusals = {reason: mask.copy() for reason, mask in gate.refusals}
    for row, now in changed:
        passes[row] = now is None
        for mask in refusals.values():
            mask[row] = False
        if now is not None:
            refusals.setdefault(now, np.zeros(len(passes), dtype=np.bool_))[row] = True
    return Gate(passes, tuple((kind, refusals[kind]) for kind in sorted(refusals) if refusals[kind].any()))


def _reason_at(gate: Gate, row: int) -> Reason | None:
    if gate.passes[row]:
        return None
    return next(reason for reason, mask in gate.refusals if mask[row])
