"""What to do instead: the API changes nothing, so a refused write says which document of the source to change."""

import re
from collections.abc import Callable, Sequence
from typing import Final

from trueup.models.ids import AllocationId, NodeId
from trueup.models.state import ClusterState

Hint = Callable[[ClusterState, str, "re.Match[str]"], str]

READ_ONLY: Final = "this API is read-only: what runs is changed by a commit to the source"


def hint_for(state: ClusterState, method: str, path: str) -> str | None:
    """Which file of the source to change instead of `METHOD path`; None if the path says nothing to us."""
    for pattern, hint in _HINTS:
        match = re.fullmatch(pattern, path)
        if match is not None:
            return hint(state, method, match)
    return None


def _add_job(_state: ClusterState, _method: str, _match: "re.Match[str]") -> str:
    return f"{READ_ONLY}; add a document of `kind: Job` to a file of it"


def _change_job(state: ClusterState, method: str, match: "re.Match[str]") -> str:
    name = match["name"]
    if state.wanted_job(name) is None:
        return f"{READ_ONLY}; add a document of `kind: Job`, `name: {name}` to a file of it"
    if method == "DELETE":
        return f"remove the document of job {name}, {_place(state, name)}, from the source"
    return f"edit the document of job {name}, {_place(state, name)}, in the source"


def _act_on_job(state: ClusterState, _method: str, match: "re.Match[str]") -> str:
    name = match["name"]
    if state.wanted_job(name) is None:
        return f"there is no job {name!r} in the source; add a document of `kind: Job`, `name: {name}`"
    version = state.current_version(name)
    digest = "" if version is None else version.digest
    edit = {
        "restart": "change `restart_token`",
        "scale": "change `count` of the group",
        "stop": "set `suspended: true`, or remove the document,",
        "start": "remove `suspended`",
        "promote": f"set `update.promote: {digest}`",
        "revert": "revert the commit that changed it",
        "dispatch": "change `restart_token`",
    }[match["verb"]]
    return f"{edit} of job {name}, {_place(state, name)}, in the source"


def _change_allocation(state: ClusterState, _method: str, match: "re.Match[str]") -> str:
    allocation = state.allocations.get(AllocationId(match["id"]))
    if allocation is None or state.wanted_job(allocation.job) is None:
        return f"{READ_ONLY}; an allocation follows from the document of its job"
    return (
        f"{allocation.name} follows from job {allocation.job}, {_place(state, allocation.job)}: "
        "change `restart_token` there to restart, `count` to have fewer"
    )


def _change_node(state: ClusterState, _method: str, match: "re.Match[str]") -> str:
    node = state.nodes.get(NodeId(match["id"])) or state.node_named(match["id"])
    name = match["id"] if node is None else node.name
    return (
        f"write what is to hold for the node into its document in the source (`kind: Node`, `name: {name}`): "
        "`eligible: false`, `drain: {}` or `lost: true`"
    )


def _change_template(_state: ClusterState, method: str, match: "re.Match[str]") -> str:
    verb = "remove" if method == "DELETE" else "edit"
    return f"{verb} the document `kind: Template`, `name: {match['name']}` in the source"


def _clear_all(_state: ClusterState, _method: str, _match: "re.Match[str]") -> str:
    return "remove all documents from the source, and confirm the held revision as /status says"


def _read_only(_state: ClusterState, _method: str, _match: "re.Match[str]") -> str:
    return READ_ONLY


def _place(state: ClusterState, name: str) -> str:
    place = state.jobs[name].place
    return f"{place.file}:{place.line}" if place.file else "where it is written"


_HINTS: Final[Sequence[tuple[str, Hint]]] = (
    (r"/jobs", _add_job),
    (r"/jobs/(?P<name>[^/]+)(/(versions|allocations|evaluations|deployments))?", _change_job),
    (r"/jobs/(?P<name>[^/]+)/(?P<verb>restart|scale|stop|start|promote|revert|dispatch)", _act_on_job),
    (r"/allocations/(?P<id>[^/]+)(/(logs|stop|restart|signal))?", _change_allocation),
    (r"/nodes/(?P<id>[^/]+)(/(drain|eligibility|purge))?", _change_node),
    (r"/templates/(?P<name>[^/]+)", _change_template),
    (r"/test/clear-all", _clear_all),
    (r"/(allocations|nodes|services|templates|revisions|evaluations|events|state|status)(/.*)?", _read_only),
    (r"/(healthz|readyz|metrics|openapi\.json|page/.*)?", _read_only),
)
