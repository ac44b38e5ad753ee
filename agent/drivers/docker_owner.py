"""Whose containers these are, by their labels: two agents on one engine never touch each other's. Pure.

A node's id is kept in the agent's data folder, and goes with it. What runs outlives the folder: so containers are known
by where the agent lives as well.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CLUSTER: Final = "trueup.cluster"
NODE: Final = "trueup.node"
AGENT: Final = "trueup.agent"


def agent_tag(data: Path, name: str, machine_id: str) -> str:
    """The same for an agent whose data folder was lost; another for every other agent that uses the engine.

    *name* is the node's: of agents that each live in a container, folder and machine may look alike.
    """
    told = json.dumps([machine_id, name, os.fsdecode(data.absolute())])
    return hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """An agent. *node* is its node's id, *agent* its `agent_tag`; without that, the id alone tells its containers."""

    cluster: str
    node: str
    agent: str = ""

    @property
    def labels(self) -> dict[str, str]:
        """The labels its containers are made with."""
        labels = {CLUSTER: self.cluster, NODE: self.node}
        return {**labels, AGENT: self.agent} if self.agent else labels

    @property
    def marks(self) -> Sequence[Mapping[str, str]]:
        """Labels by any of which a container is its own: those made before its folder was lost have another node."""
        labels = self.labels
        return [{CLUSTER: self.cluster, name: labels[name]} for name in (NODE, AGENT) if name in labels]

    def owns(self, labels: Mapping[str, str]) -> bool:
        """Whether a container with these labels is its own."""
        return any(mark.items() <= labels.items() for mark in self.marks)
