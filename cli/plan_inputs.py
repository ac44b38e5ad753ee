"""The state that `trueup plan` begins from: the live control plane's, a data folder's, or one from files.

Everything is only read. The clock's reading comes with the state, so that a plan of an exported state says the same
again and again.
"""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

from cli.blocks import span
from cli.client import Client
from cli.failures import Failed
from cli.settings import Settings
from trueup.models.codec import from_plain
from trueup.models.job import Job
from trueup.models.state import ClusterState
from trueup.models.state_document import (
    JobReader,
    document_time,
    node_from_document,
    state_from_document,
)

OLD_AFTER: Final = timedelta(minutes=15)
"""An exported state older than this is warned about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanInput:
    """A state, the clock's reading that goes with it, and what is to be said about it."""

    state: ClusterState
    now: datetime
    warnings: tuple[str, ...] = ()


class CountedIds:
    """Ids for a plan that is never carried out: the same ones each time."""

    def __init__(self) -> None:
        self._given = 0

    def new_id(self) -> str:
        """32 hexadecimal digits."""
        self._given += 1
        return f"{self._given:032x}"


def live_input(settings: Settings) -> PlanInput:
    """The state of the control plane at `--address`, as of one index."""
    client = Client(settings)
    body = client.get("/state").body
    if not isinstance(body, Mapping) or "index" not in body:
        raise Failed(f"{client.address}/state did not answer with a state; is it a trueup control plane?")
    return _from_document(body, f"{client.address}/state", stored_job)


def data_input(folder: Path, now: datetime) -> PlanInput:
    """The state in a control plane's data folder (or that of `trueup up`), whether or not it runs. Writes nothing."""
    from metastore.database import FILE_NAME
    from metastore.errors import StoreError
    from metastore.store import SqlStore

    of_up = folder / "server"
    held = of_up if (of_up / FILE_NAME).exists() and not (folder / FILE_NAME).exists() else folder
    try:
        with closing(SqlStore.read_only(held)) as store:
            return PlanInput(state=store.state, now=now)
    except (StoreError, OSError) as error:
        raise Failed(str(error)) from error


def state_file_input(path: Path, now: datetime | None, machine_now: datetime) -> PlanInput:
    """The state in a STATE.json (or YAML); its clock is *now*, else its own, else the machine's."""
    document = _read(path, "--state")
    if not isinstance(document, Mapping):
        raise Failed(f"--state {path}: write a mapping with nodes, jobs and allocations")
    from trueup.sources.job_spec import job_from_spec

    own = _time_of(document, f"--state {path}")
    found = _from_document({**document, "now": now or own or machine_now}, f"--state {path}", job_from_spec)
    warnings: tuple[str, ...] = ()
    if own is not None and machine_now - own > OLD_AFTER:
        age = span(machine_now - own)
        warnings = (
            f"{path} is {age} old: what runs may have changed since; `trueup export` writes a new one",
        )
    return PlanInput(state=found.state, now=found.now, warnings=warnings)


def nodes_file_input(path: Path, now: datetime) -> PlanInput:
    """An empty cluster of the nodes in a file."""
    document = _read(path, "--nodes")
    plain = document.get("nodes", document.get("items")) if isinstance(document, Mapping) else document
    if not isinstance(plain, list):
        raise Failed(f"--nodes {path}: write a list of nodes, each like `{{name: node-1}}`")
    state = ClusterState()
    for number, one in enumerate(plain):
        try:
            node = node_from_document(one, now)
        except KeyError as error:
            raise Failed(f"--nodes {path}: entry {number + 1}: {error.args[0]} is missing") from error
        except (TypeError, AttributeError, ValueError) as error:
            raise Failed(f"--nodes {path}: entry {number + 1}: {error}") from error
        if node.id in state.nodes or state.node_named(node.name) is not None:
            raise Failed(f"--nodes {path}: entry {number + 1}: there are two nodes named {node.name}")
        state.nodes[node.id] = node
    return PlanInput(state=state, now=now)


def stored_job(spec: Mapping[str, Any]) -> Job:
    """A job as a control plane writes it: valid and complete, if perhaps by the rules of another release."""
    return from_plain(spec, Job)


def _from_document(document: Mapping[str, Any], where: str, read_job: JobReader) -> PlanInput:
    now = _time_of(document, where)
    if now is None:
        raise Failed(f"{where}: `now` is missing")
    try:
        return PlanInput(state=state_from_document(document, read_job), now=now)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        detail = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
        raise Failed(f"{where}: {detail}") from error


def _time_of(document: Mapping[str, Any], where: str) -> datetime | None:
    try:
        moment = document_time(document)
    except ValueError as error:
        raise Failed(f"{where}: now: {error}") from error
    if moment is not None and moment.tzinfo is None:
        raise Failed(f"{where}: now: write a time with its zone, like 2026-06-01T12:00:00Z")
    return moment


def _read(path: Path, option: str) -> Any:  # noqa: ANN401 - whatever the file says
    """The one document of a JSON or YAML file, without the limits of specs: it is the operator's own."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise Failed(f"{option} {path} cannot be read: {error.strerror}") from error
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _yaml_document(text, f"{option} {path}")


def _yaml_document(text: bytes, where: str) -> Any:  # noqa: ANN401 - as above
    """The document with the text of its values, so that a label `1.10` stays what was written."""
    from trueup.sources.composer import Limits
    from trueup.sources.parse import parse

    parsed = parse(text, "", limits=Limits(depth=500, nodes=10**9, file_nodes=10**9))
    errors = [*parsed.errors, *(error for one in parsed.documents for error in one.errors)]
    if errors:
        first = errors[0]
        place = f"{where}:{first.line}:{first.column}" if first.line else where
        raise Failed(f"{place}: {first.message}" + (f"; {first.hint}" if first.hint else ""))
    if len(parsed.documents) != 1:
        raise Failed(f"{where}: write one document, not {len(parsed.documents)}")
    return parsed.documents[0].tree.value
