"""What a revision changes in the records: new versions, removals, policies, settings; or that it is held whole.

Pure: `register` compares the desired state of a revision with what was last applied; `write` puts the result into
a transaction, or into a copy of the state in a dry run. Nothing here touches an allocation.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Protocol

import msgspec

from reconciler.ending import Loss
from reconciler.hold import held_for
from reconciler.revisions import Known, applied_revision, authors_revisions, nothing_known, seen_again
from trueup.models.desired import DesiredJob, DesiredState
from trueup.models.digest import job_digest
from trueup.models.errors import SpecError
from trueup.models.evaluation import Event
from trueup.models.ids import RevisionId
from trueup.models.job import Job
from trueup.models.node import Node, with_policy
from trueup.models.record import JobRecord, JobVersion
from trueup.models.revision import ChangedJobs, Commit, Held, Revision
from trueup.models.state import ClusterState
from trueup.models.template import ClusterSettings, NodePolicy, Template


class RegistrationPuts(Protocol):
    """What takes a registration."""

    def put_job(self, record: JobRecord) -> None: ...
    def put_version(self, version: JobVersion) -> None: ...
    def put_template(self, template: Template) -> None: ...
    def drop_template(self, name: str) -> None: ...
    def put_node_policy(self, policy: NodePolicy) -> None: ...
    def drop_node_policy(self, name: str) -> None: ...
    def put_settings(self, settings: ClusterSettings) -> None: ...
    def put_node(self, node: Node) -> None: ...
    def put_event(self, event: Event) -> None: ...
    def put_revision(self, revision: Revision) -> None: ...
    def set_revision(self, revision: RevisionId, held: Held | None) -> None: ...
    def set_held(self, held: Held | None) -> None: ...
    def set_errors(self, errors: tuple[SpecError, ...]) -> None: ...


class Registration(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A revision's effect on the records; with *held* set, none of it happens but the note of it.

    *invalid*: it is held for its errors, which no confirmation lets through.
    """

    commit: Commit
    held: Held | None = None
    invalid: bool = False
    records: tuple[JobRecord, ...] = ()
    versions: tuple[JobVersion, ...] = ()
    changed: ChangedJobs = ChangedJobs()
    templates: tuple[Template, ...] = ()
    dropped_templates: tuple[str, ...] = ()
    policies: tuple[NodePolicy, ...] = ()
    dropped_policies: tuple[str, ...] = ()
    nodes: tuple[Node, ...] = ()
    settings: ClusterSettings | None = None
    errors: tuple[SpecError, ...] = ()
    authors: tuple[Commit, ...] = ()

    def is_known_to(self, state: ClusterState) -> bool:
        """Whether *state* has all of it already, so that writing it would change nothing."""
        if self.errors != state.errors or self.held != state.held:
            return False
        if self.held is not None:
            return True
        return self.commit.id == state.revision and not (
            self.records
            or self.versions
            or self.templates
            or self.dropped_templates
            or self.policies
            or self.dropped_policies
            or self.nodes
            or self.settings
        )

    @property
    def jobs_changed(self) -> frozenset[str]:
        """Names of the jobs whose records change in a way a pass must look at."""
        changed = self.changed
        return frozenset((*changed.created, *changed.updated, *changed.removed))


def register(
    state: ClusterState, desired: DesiredState, now: datetime, *, atomic: bool = False
) -> Registration:
    """What applying *desired* to *state* changes in the records. A revision with a large loss comes out held.

    *atomic*: so does one with any invalid document.
    """
    if atomic and desired.errors:
        return Registration(
            commit=desired.commit, held=_held_for_errors(desired), invalid=True, errors=desired.errors
        )
    settings = desired.cluster or _kept_settings(state, desired)
    jobs = _Jobs(state=state, desired=desired, now=now)
    policies, dropped = _policies(state, desired)
    policies_after = {**state.node_policies, **{policy.name: policy for policy in policies}}
    for name in dropped:
        policies_after.pop(name, None)
    nodes = tuple(_recoloured(state, policies_after, now))
    held = held_for(
        Loss(
            state=state,
            revision=desired.commit.id,
            wanted=jobs.wanted_after(),
            nodes={node.id: node for node in nodes},
            removed_policies=dropped,
            settings=settings,
            now=now,
            unknown=jobs.unknown(),
        )
    )
    if held is not None:
        return Registration(commit=desired.commit, held=held, errors=desired.errors)
    return Registration(
        commit=desired.commit,
        records=tuple(jobs.records()),
        versions=jobs.versions,
        changed=jobs.changed(),
        templates=tuple(
            one for name, one in sorted(desired.templates.items()) if state.templates.get(name) != one
        ),
        dropped_templates=_absent(state.templates, desired.templates, desired, "Template"),
        policies=policies,
        dropped_policies=dropped,
        nodes=nodes,
        settings=settings if settings != state.settings else None,
        errors=desired.errors,
        authors=tuple(jobs.authors()),
    )


def _held_for_errors(desired: DesiredState) -> Held:
    count = len(desired.errors)
    words = "1 error is" if count == 1 else f"{count} errors are"
    return Held(
        revision=desired.commit.id,
        reason=f"{words} in it, and with --atomic a revision is applied whole or not at all",
    )


def write(
    registration: Registration,
    state: ClusterState,
    target: RegistrationPuts,
    now: datetime,
    known: Known = nothing_known,
) -> None:
    """Puts a registration. With `held`, only the revision, its errors and the hold are noted."""
    if registration.errors != state.errors:
        target.set_errors(registration.errors)
    if registration.held is not None:
        _write_held(registration, registration.held, state, target, now, known)
        return
    _write_documents(registration, target, now, known)
    revision = applied_revision(registration.commit, registration.changed, registration.errors, now)
    revision = seen_again(revision, state, known)
    if registration.commit.id != state.revision:
        target.put_event(
            Event(
                at=now, type="RevisionApplied", message=_words(registration), revision=registration.commit.id
            )
        )
    if state.held is not None:
        target.put_event(_released(registration, state.held, state, now))
    target.put_revision(revision)
    target.set_revision(registration.commit.id, None)


def _released(registration: Registration, held: Held, state: ClusterState, now: datetime) -> Event:
    """Who let a held revision go ahead, or committed one that ends less."""
    commit = registration.commit
    settings = registration.settings or state.settings
    confirmed = bool(held.confirm) and settings.confirm == held.confirm
    how = "by its confirmation" if confirmed else "by a revision that is not held"
    who = f" of {commit.author}" if commit.author else ""
    mail = f" <{commit.author_email}>" if commit.author and commit.author_email else ""
    message = f"the hold of revision {held.revision[:12]} ended {how}, {commit.id[:12]}{who}{mail}"
    return Event(at=now, type="HoldEnded", message=message, revision=commit.id)


def _write_documents(
    registration: Registration, target: RegistrationPuts, now: datetime, known: Known
) -> None:
    for revision in authors_revisions(registration.authors, known, now):
        target.put_revision(revision)
    for version in registration.versions:
        target.put_version(version)
    for record in registration.records:
        target.put_job(record)
    for template in registration.templates:
        target.put_template(template)
    for name in registration.dropped_templates:
        target.drop_template(name)
    for policy in registration.policies:
        target.put_node_policy(policy)
    for name in registration.dropped_policies:
        target.drop_node_policy(name)
    for node in registration.nodes:
        target.put_node(node)
    if registration.settings is not None:
        target.put_settings(registration.settings)


def _write_held(
    registration: Registration,
    held: Held,
    state: ClusterState,
    target: RegistrationPuts,
    now: datetime,
    known: Known,
) -> None:
    revision = applied_revision(registration.commit, ChangedJobs(), registration.errors, now)
    target.put_revision(
        msgspec.structs.replace(
            seen_again(revision, state, known),
            state="invalid" if registration.invalid else "held",
            applied_at=None,
            held=held,
        )
    )
    if state.held != held:
        target.set_held(held)
        target.put_event(Event(at=now, type="RevisionHeld", message=held.reason, revision=held.revision))


def _words(registration: Registration) -> str:
    changed = registration.changed
    parts = [
        f"{word} {', '.join(names)}"
        for word, names in (
            ("created", changed.created),
            ("updated", changed.updated),
            ("removed", changed.removed),
            ("invalid", changed.invalid),
        )
        if names
    ]
    return f"revision {registration.commit.id[:12]} applied" + (f": {'; '.join(parts)}" if parts else "")


@dataclass(frozen=True, kw_only=True)
class _Jobs:
    """The jobs' part of a registration. What walks over all of them is done once."""

    state: ClusterState
    desired: DesiredState
    now: datetime

    def wanted_after(self) -> dict[str, Job]:
        """Every job as it would run once this is applied: a frozen one as it was when it was frozen."""
        wanted = {}
        for name, one in self.desired.jobs.items():
            number = _frozen_version(self.state.jobs.get(name), one.job)
            frozen = None if number is None else self.state.versions.get((name, number))
            wanted[name] = one.job if frozen is None else frozen.job
        for name in self._kept_absent:
            version = self.state.current_version(name)
            if version is not None:
                wanted[name] = version.job
        return wanted

    @cached_property
    def versions(self) -> tuple[JobVersion, ...]:
        """Of those that changed, by name."""
        return tuple(self._new_versions())

    def _new_versions(self) -> Iterable[JobVersion]:
        for name, one in sorted(self.desired.jobs.items()):
            current = self.state.current_version(name)
            record = self.state.jobs.get(name)
            if current is not None and record is not None and not record.removed and current.job == one.job:
                continue
            yield JobVersion(
                job=one.job,
                version=self._next_number(name),
                revision=self._revision_of(one),
                digest=job_digest(one.job),
                created_at=self.now,
            )

    def records(self) -> Iterable[JobRecord]:
        made = {version.job.name: version for version in self.versions}
        for name, one in sorted(self.desired.jobs.items()):
            record = self._record(one, made.get(name))
            if record != self.state.jobs.get(name):
                yield record
        kept = self._kept_absent
        for name, held in sorted(self.state.jobs.items()):
            if name in self.desired.jobs or held.removed:
                continue
            if name in kept:
                if not held.invalid:
                    yield msgspec.structs.replace(held, invalid=True, modified_at=self.now)
            else:
                yield self._removed(held)

    def changed(self) -> ChangedJobs:
        created: list[str] = []
        updated: list[str] = []
        for version in self.versions:
            held = self.state.jobs.get(version.job.name)
            (created if held is None or held.removed else updated).append(version.job.name)
        kept = self._kept_absent
        removed = [
            name
            for name, held in self.state.jobs.items()
            if not held.removed and name not in self.desired.jobs and name not in kept
        ]
        invalid = {one.name for one in self.desired.invalid if one.kind == "Job" and one.name} | kept
        return ChangedJobs(
            created=tuple(sorted(created)),
            updated=tuple(sorted(updated)),
            removed=tuple(sorted(removed)),
            invalid=tuple(sorted(invalid)),
        )

    def authors(self) -> Iterable[Commit]:
        """Commits before the revision's own that changed a job now: history shows who they were."""
        seen = {self.desired.commit.id}
        for version in self.versions:
            commit = self.desired.jobs[version.job.name].commit
            if commit is not None and commit.id not in seen:
                seen.add(commit.id)
                yield commit

    def unknown(self) -> frozenset[str]:
        """Jobs of adopted allocations that no record is of, and whose document may be one that nobody can read."""
        names = {held.job for held in list(self.state.allocations.values()) if held.is_wanted}
        absent = {name for name in names if name not in self.state.jobs and name not in self.desired.jobs}
        if not self.desired.unreadable_files:
            absent &= {one.name for one in self.desired.invalid if one.kind == "Job"}
        return frozenset(absent)

    @cached_property
    def _kept_absent(self) -> frozenset[str]:
        """Jobs whose valid document is absent, but whose absence proves nothing.

        Their document is invalid; or a file could not be read at all, so it may be in there; or another wanted
        job depends on them.
        """
        desired, state = self.desired, self.state
        absent = {name for name, held in state.jobs.items() if not held.removed and name not in desired.jobs}
        if desired.unreadable_files:
            return frozenset(absent)
        invalid = {one.name for one in desired.invalid if one.kind == "Job"}
        kept = absent & invalid
        while True:
            staying = [one.job for one in desired.jobs.values()]
            staying += [version.job for name in kept if (version := state.current_version(name)) is not None]
            needed = {name for job in staying for name in job.depends_on}
            more = (absent & needed) - kept
            if not more:
                return frozenset(kept)
            kept |= more

    def _record(self, one: DesiredJob, made: JobVersion | None) -> JobRecord:
        held = self.state.jobs.get(one.job.name)
        frozen_version = _frozen_version(held, one.job)
        if held is None or held.removed:
            number = 1 if made is None else made.version
            return JobRecord(
                name=one.job.name,
                version=number,
                revision=self._revision_of(one),
                place=one.place,
                files=one.files,
                template=one.template,
                frozen_version=number if one.job.frozen else None,
                last_run_at=None if held is None else held.last_run_at,
                last_run_token=one.job.restart_token if held is None else held.last_run_token,
                created_at=self.now,
                modified_at=self.now,
            )
        unscheduled = one.job.schedule is None
        current = self.state.current_version(held.name)
        is_another = made is not None and (current is None or made.digest != current.digest)
        changed = msgspec.structs.replace(
            held,
            version=held.version if made is None else made.version,
            revision=held.revision if made is None else made.revision,
            place=one.place,
            files=one.files,
            template=one.template,
            invalid=False,
            frozen_version=frozen_version,
            reverted="" if is_another else held.reverted,
            reverted_to=None if is_another else held.reverted_to,
            last_run_token=one.job.restart_token if unscheduled else held.last_run_token,
        )
        if changed == held:
            return held
        return msgspec.structs.replace(changed, modified_at=self.now)

    def _removed(self, held: JobRecord) -> JobRecord:
        return msgspec.structs.replace(
            held,
            removed=True,
            removed_revision=self.desired.commit.id,
            invalid=False,
            unplaced=(),
            modified_at=self.now,
        )

    def _next_number(self, name: str) -> int:
        """Greater than any known, also than those of allocations adopted after the store was lost."""
        held = self.state.jobs.get(name)
        adopted = max((one.job_version for one in self.state.allocations_of_job(name)), default=0)
        return max(0 if held is None else held.version, adopted) + 1

    def _revision_of(self, one: DesiredJob) -> str:
        return (one.commit or self.desired.commit).id


def _frozen_version(held: JobRecord | None, job: Job) -> int | None:
    if not job.frozen or held is None:
        return None
    return held.frozen_version if held.frozen_version is not None else held.version


def _policies(state: ClusterState, desired: DesiredState) -> tuple[tuple[NodePolicy, ...], tuple[str, ...]]:
    changed = tuple(
        policy for name, policy in sorted(desired.nodes.items()) if state.node_policies.get(name) != policy
    )
    return changed, _absent(state.node_policies, desired.nodes, desired, "Node")


def _absent(known: Iterable[str], wanted: Iterable[str], desired: DesiredState, kind: str) -> tuple[str, ...]:
    """Documents that are truly gone: not invalid, and no file unreadable that may hold them."""
    if desired.unreadable_files:
        return ()
    invalid = {one.name for one in desired.invalid if one.kind == kind}
    return tuple(sorted(set(known) - set(wanted) - invalid))


def _recoloured(state: ClusterState, policies: dict[str, NodePolicy], now: datetime) -> Iterable[Node]:
    """Nodes whose policy came, changed or went; what a state says of a node without one stays as it is said."""
    for node in sorted(state.nodes.values(), key=lambda node: node.name):
        if node.name not in policies and node.name not in state.node_policies:
            continue
        changed = with_policy(node, policies.get(node.name), now)
        if changed != node:
            yield changed


def _kept_settings(state: ClusterState, desired: DesiredState) -> ClusterSettings:
    """Without a valid Cluster document: the defaults, or the last good one while it may only be invalid."""
    uncertain = bool(desired.unreadable_files) or any(one.kind == "Cluster" for one in desired.invalid)
    return state.settings if uncertain else ClusterSettings()
