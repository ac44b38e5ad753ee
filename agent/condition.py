"""What keeps this node from taking anything new, whatever its drivers say: told as the state of each of them.

That is what placement heeds already, what `trueup nodes` shows and what a reason for unplaced work is worded by; it
goes with every beat. What runs is not concerned.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec

from agent.heartbeat import Facts, Machine


class ConditionedMachine:
    """A machine, as `agent.heartbeat.Machine`, none of whose drivers is healthy while there is trouble."""

    def __init__(self, machine: Machine, troubles: Sequence[Callable[[], str]]) -> None:
        """*troubles* say why nothing new can be taken, empty if it can; the first that does is told."""
        self._machine = machine
        self._troubles = troubles

    def facts(self) -> Facts:
        """How the machine is now. What is wrong with a driver itself stands before what is wrong with the node."""
        facts = self._machine.facts()
        trouble = next((why for ask in self._troubles if (why := ask())), "")
        if not trouble:
            return facts
        drivers = {
            name: msgspec.structs.replace(state, healthy=False, detail=trouble) if state.healthy else state
            for name, state in facts.drivers.items()
        }
        return replace(facts, drivers=drivers)
