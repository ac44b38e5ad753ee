"""Pushes to agents over HTTP: what the dispatcher knows as `Agents`. Every call has a deadline.

It goes to the endpoint the node registered and nowhere else: no redirect, no proxy of the environment, and the
credential is that node's own. The sender's epoch goes with it, so that an agent can refuse an older copy of a store.
"""

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Final

import requests
from requests.adapters import HTTPAdapter

from trueup.models.agent_error import AgentUnreachable
from trueup.models.codec import to_json
from trueup.models.ids import NodeId
from trueup.models.node import Node
from trueup.models.wire import Assignment, StopOrder

EPOCH_HEADER: Final = "X-Epoch"
CONNECT_SECONDS: Final = 2.0
READ_SECONDS: Final = 5.0
STOPS_AT_ONCE: Final = 200
"""How many ids go into one request's address: well below what servers take."""
_OK: Final = {HTTPStatus.OK, HTTPStatus.ACCEPTED, HTTPStatus.NO_CONTENT}


class AgentClient:
    """One client for all agents, thread-safe."""

    def __init__(
        self,
        secret_of: Callable[[NodeId], str | None],
        *,
        epoch: Callable[[], int],
        verify: Callable[[Node], str | bool] | None = None,
        on_try: Callable[[Node, bool], None] = lambda _node, _reached: None,
    ) -> None:
        """*secret_of* gives a node's secret; *verify* what requests takes: a file of certificates, or True.

        *on_try* hears of every try whether the node answered.
        """
        self._secret_of = secret_of
        self._epoch = epoch
        self._verify = verify
        self._on_try = on_try
        self._session = requests.Session()
        self._session.trust_env = False
        # 10 hosts, requests' default, would mean a new connection for almost every push of a larger cluster.
        adapter = HTTPAdapter(pool_connections=1024, pool_maxsize=4)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def start(self, node: Node, assignments: Sequence[Assignment]) -> None:
        """Hands assignments to a node, all at once. AgentUnreachable; a repeat does no harm."""
        if assignments:
            self._ask(node, "POST", "/allocations", body=to_json(list(assignments)))

    def stop(self, node: Node, orders: Sequence[StopOrder]) -> None:
        """Tells a node to end allocations, those of one reason together. AgentUnreachable; a repeat does no harm."""
        by_reason: dict[str, list[str]] = {}
        for order in orders:
            by_reason.setdefault(order.reason, []).append(order.id)
        for reason, ids in by_reason.items():
            for first in range(0, len(ids), STOPS_AT_ONCE):
                some = ids[first : first + STOPS_AT_ONCE]
                self._ask(node, "DELETE", "/allocations", params={"id": some, "reason": reason})

    def nudge(self, node: Node) -> None:
        """Has the node beat at once: there is news for it. AgentUnreachable; a repeat does no harm."""
        self._ask(node, "POST", "/nudge")

    def close(self) -> None:
        """Closes kept connections."""
        self._session.close()

    def _ask(
        self,
        node: Node,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        params: Mapping[str, str | list[str]] | None = None,
    ) -> None:
        secret = self._secret_of(node.id)
        if not node.endpoint or secret is None:
            self._on_try(node, False)
            raise AgentUnreachable(f"node {node.name} offers no endpoint; it works by its heartbeats")
        headers = {
            "Authorization": f"Bearer {secret}",
            "Content-Type": "application/json",
            EPOCH_HEADER: str(self._epoch()),
        }
        try:
            response = self._session.request(
                method,
                node.endpoint.rstrip("/") + path,
                data=body,
                params=params,
                headers=headers,
                timeout=(CONNECT_SECONDS, READ_SECONDS),
                allow_redirects=False,
                verify=True if self._verify is None else self._verify(node),
            )
        except requests.RequestException as error:
            self._on_try(node, False)
            raise AgentUnreachable(f"node {node.name}: {type(error).__name__}") from error
        # Another program at its address, or another node's agent, answers that the secret is not known.
        self._on_try(node, response.status_code in {*_OK, HTTPStatus.CONFLICT})
        if response.status_code not in _OK:
            raise AgentUnreachable(f"node {node.name} answered {response.status_code} {response.reason}")
