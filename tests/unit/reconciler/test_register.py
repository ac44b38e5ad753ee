"""From a revision to the records: what is new, changed, gone, kept, and who asked for it."""

import msgspec

from reconciler.register import register, write
from reconciler.state_copy import StateCopy
from tests.builders import NOON, a_desired, a_job, a_node, a_state, an_allocation
from tests.pure_cluster import PureCluster
from trueup.models.desired import InvalidDocument, Place
from trueup.models.errors import SpecError
from trueup.models.health import cluster_health
from trueup.models.ids import RevisionId
from trueup.models.node import Drain
from trueup.models.revision import Commit
from trueup.models.template import ClusterSettings, DrainPolicy, NodePolicy
from trueup.models.units import Duration


def test_a_document_added_registers_its_job_in_version_1() -> None:
    cluster = PureCluster(a_state())
    registration = cluster.apply(a_desired(a_job()))
    assert registration.changed.created == ("web",)
    assert cluster.state.jobs["web"].version == 1
    assert cluster.state.revision == "r2"


def test_the_same_revision_again_is_known() -> None:
    cluster = PureCluster(a_state())
    cluster.apply(a_desired(a_job()))
    assert register(cluster.state, a_desired(a_job()), NOON).is_known_to(cluster.state)


def test_moving_to_another_file_makes_no_version() -> None:
    cluster = PureCluster(a_state(jobs=(a_job(),)))
    desired = a_desired(a_job())
    moved = msgspec.structs.replace(desired.jobs["web"], place=Place(file="other.yaml", line=3))
    registration = cluster.apply(msgspec.structs.replace(desired, jobs={"web": moved}))
    assert registration.changed.updated == ()
    assert cluster.state.jobs["web"].version == 1
    assert cluster.state.jobs["web"].place.file == "other.yaml"


def test_numbers_go_on_over_a_deletion_and_return() -> None:
    cluster = PureCluster(a_state(jobs=(a_job(), a_job("other"))))
    cluster.apply(a_desired(a_job("other"), revision="r2"))
    assert cluster.state.jobs["web"].removed
    cluster.apply(a_desired(a_job("other"), a_job(), revision="r3"))
    assert (cluster.state.jobs["web"].version, cluster.state.jobs["web"].removed) == (2, False)


def test_numbers_exceed_those_of_adopted_allocations() -> None:
    """A new store that took over what ran in version 7 goes on with 8, and a newer dispatch never looks older."""
    state = a_state(nodes=(a_node(),))
    state.put_allocation(an_allocation(a_job(), a_node(), version=7))
    cluster = PureCluster(state)
    cluster.apply(a_desired(a_job()))
    assert cluster.state.jobs["web"].version == 8
    assert not cluster.one_pass()["web"].placements, "what runs was adopted, and is not started again"


def test_a_job_is_blamed_on_the_commit_that_changed_it() -> None:
    """One look sees two commits: each job says which one was its own, and history has both authors."""
    cluster = PureCluster(a_state())
    desired = a_desired(a_job(), a_job("db"), revision="r3")
    earlier = Commit(id=RevisionId("r2"), author="Bob", author_email="bob@example.org", subject="add db")
    jobs = {**desired.jobs, "db": msgspec.structs.replace(desired.jobs["db"], commit=earlier)}
    registration = cluster.apply(msgspec.structs.replace(desired, jobs=jobs))
    assert cluster.state.jobs["db"].revision == "r2"
    assert cluster.state.jobs["web"].revision == "r3"
    assert [one.author for one in registration.authors] == ["Bob"]


def test_a_job_that_another_depends_on_is_not_removed() -> None:
    cluster = PureCluster(a_state(jobs=(a_job("base"), a_job("top", depends_on=("base",)))))
    cluster.apply(a_desired(a_job("top", depends_on=("base",))))
    assert not cluster.state.jobs["base"].removed


def test_a_node_document_colours_its_node_and_its_removal_ends_that() -> None:
    cluster = PureCluster(a_state(nodes=(a_node(),), jobs=(a_job(),)))
    policy = NodePolicy(
        name="node-1", labels={"disk": "ssd"}, drain=DrainPolicy(deadline=Duration(minutes=10))
    )
    cluster.apply(a_desired(a_job(), revision="r2", nodes={"node-1": policy}))
    node = cluster.state.nodes[a_node().id]
    assert (node.labels, node.eligible, node.declared) == ({"disk": "ssd"}, False, True)
    assert node.drain == Drain(started_at=NOON, deadline_at=NOON + Duration(minutes=10))
    cluster.apply(a_desired(a_job(), revision="r3"))
    assert cluster.state.nodes[a_node().id] == a_node()


def test_without_a_cluster_document_the_settings_are_the_defaults() -> None:
    cluster = PureCluster(a_state(jobs=(a_job(),)))
    cluster.apply(a_desired(a_job(), revision="r2", cluster=ClusterSettings(placement="spread")))
    assert cluster.state.settings.placement == "spread"
    cluster.apply(a_desired(a_job(), revision="r3"))
    assert cluster.state.settings == ClusterSettings()


def test_atomic_holds_a_revision_with_an_error_whole_until_one_without() -> None:
    """Nothing of it happens, also no removal of what is valid; what is held for errors cannot be confirmed."""
    state = a_state(jobs=(a_job(), a_job("api"), a_job("old")))
    error = SpecError(file="api.yaml", line=3, column=1, path="count", message="-1 is too small")
    invalid = InvalidDocument(kind="Job", name="api", file="api.yaml")
    desired = a_desired(a_job(count=5), revision="r3", errors=(error,), invalid=(invalid,))
    registration = register(state, desired, NOON, atomic=True)
    assert registration.held is not None
    assert "1 error is in it" in registration.held.reason
    assert registration.held.confirm == ""
    assert (registration.records, registration.versions, registration.jobs_changed) == ((), (), frozenset())
    before = state.copy()
    write(registration, state, StateCopy(state), NOON)
    assert (state.jobs, state.versions) == (before.jobs, before.versions)
    assert cluster_health(state).sync == "Invalid"
    assert register(state, desired, NOON, atomic=True).is_known_to(state)

    mended = register(state, a_desired(a_job(count=5), a_job("api"), revision="r4"), NOON, atomic=True)
    assert mended.held is None
    assert (mended.changed.updated, mended.changed.removed) == (("web",), ("old",))
    write(mended, state, StateCopy(state), NOON)
    assert (state.held, state.errors) == (None, ())
