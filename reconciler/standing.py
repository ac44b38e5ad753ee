"""How all nodes stand to an allocation: what `whereabouts` finds, apart from it since it needs no planner. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Whereabouts:
    """*score* None: its node would not take it now, and *refused* has why. *parts* sum to the score.

    *refused* counts the nodes that cannot take it by reason; *lower*, *equal* and *higher* are nodes that could, by
    their score, the best first.
    """

    score: float | None
    parts: dict[str, float]
    refused: dict[str, int]
    lower: tuple[tuple[str, float], ...] = ()
    equal: tuple[tuple[str, float], ...] = ()
    higher: tuple[tuple[str, float], ...] = ()
