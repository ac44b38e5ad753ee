"""An error is never an absence: the contract's paragraph, sentence by sentence, from real trees to what would stop.

Each story runs over a folder and over a git repository, through source, registration and scheduler.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import pytest

from reconciler.hold import confirming_document
from tests.builders import a_node, a_state
from tests.pure_cluster import PureCluster
from tests.unit.sources_io.repository import ManualClock, Repo, follow, job_text
from trueup.models.desired import DesiredState
from trueup.models.health import cluster_health, job_health
from trueup.models.ids import RevisionId
from trueup.models.revision import Held
from trueup.models.source_error import SourceUnavailable
from trueup.sources.spec_source import TreeSpecSource, directory_source

Files = dict[str, str | None]
BROKEN = "kind: Job\nname: [\n"
TEMPLATE = """
kind: Template
name: base
parameters: {seconds: {type: string}}
job: {groups: [{tasks: [{config: {command: [sleep, "{{ seconds }}"]}}]}]}
"""


def templated(name: str, seconds: str = "1") -> str:
    return f'kind: Job\nname: {name}\ntemplate: base\nparameters: {{seconds: "{seconds}"}}\n'


def counted(name: str, count: int, more: str = "") -> str:
    return f"{job_text(name).replace('groups: [{', f'groups: [{{count: {count}, ')}{more}"


class Tree(Protocol):
    """Real specs that people edit."""

    def edit(self, files: Files) -> None: ...
    def look(self, applied: RevisionId | None) -> DesiredState: ...
    def restart(self) -> None: ...
    def close(self) -> None: ...


class FolderTree:
    def __init__(self, folder: Path, clock: ManualClock) -> None:
        self.folder = folder
        self._clock = clock
        folder.mkdir()
        self._source = directory_source([folder], clock)

    def edit(self, files: Files) -> None:
        for name, text in files.items():
            path = self.folder / name
            if text is None:
                path.unlink()
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)

    def look(self, applied: RevisionId | None) -> DesiredState:
        """What is there once every wait for a removal is over."""
        for _ in range(3):
            with suppress(SourceUnavailable):
                self._source.read(applied)
            self._clock.seconds += 3
        return self._source.read(applied)

    def restart(self) -> None:
        self.close()
        self._source = directory_source([self.folder], self._clock)

    def close(self) -> None:
        self._source.close()


class GitTree:
    def __init__(self, folder: Path, clock: ManualClock) -> None:
        self.repo = Repo(folder)
        self._data = folder.with_name("data")
        self._clock = clock
        self._source: TreeSpecSource = follow(folder, self._data, clock)

    def edit(self, files: Files) -> None:
        self.repo.commit(files)

    def look(self, applied: RevisionId | None) -> DesiredState:
        self._source.look_now()
        return self._source.read(applied)

    def restart(self) -> None:
        self.close()
        self._source = follow(self.repo.path, self._data, self._clock)

    def close(self) -> None:
        self._source.close()


class Story:
    """A tree, and a cluster that runs what it says."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.cluster = PureCluster(a_state(nodes=(a_node(cpu=64, memory="64GiB"), a_node("node-2"))))
        self.cluster.state.revision = None

    def edit(self, **files: str | None) -> Held | None:
        """Edits files (`a` is a.yaml), applies what the source makes of it, and lets the cluster do all of it."""
        self.tree.edit({f"{name}.yaml": text for name, text in files.items()})
        return self.apply()

    def apply(self) -> Held | None:
        held = self.cluster.apply(self.tree.look(self.cluster.state.revision)).held
        self.cluster.settle()
        return held

    def unreadable(self) -> str:
        with pytest.raises(SourceUnavailable) as raised:
            self.tree.look(self.cluster.state.revision)
        return str(raised.value)

    @property
    def running(self) -> dict[str, int]:
        """How many of each job are wanted."""
        jobs = sorted(self.cluster.state.jobs)
        return {name: len(self.cluster.names(name)) for name in jobs if self.cluster.names(name)}

    @property
    def ids(self) -> set[str]:
        return {held.id for held in self.cluster.state.allocations.values() if held.is_wanted}

    @property
    def sync(self) -> str:
        return cluster_health(self.cluster.state).sync

    @property
    def errors(self) -> str:
        return "\n".join(str(error) for error in self.cluster.state.errors)

    def sync_of(self, job: str) -> str:
        return job_health(self.cluster.state, job).sync


@pytest.fixture(params=[FolderTree, GitTree])
def story(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock, repo: Repo) -> Iterator[Story]:
    make: Callable[[Path, ManualClock], Tree] = request.param
    tree = make(tmp_path / "specs", clock)
    yield Story(tree)
    tree.close()


def test_a_file_that_cannot_be_parsed_removes_no_job_nor_one_that_vanished_with_it(story: Story) -> None:
    """A move whose second half is broken: nobody knows whether the job went there."""
    story.edit(a=job_text("web"), b=job_text("api"), c=job_text("db"))
    story.edit(a=None, b=BROKEN, moved=job_text("api", "2") + "---\n" + BROKEN)
    assert story.running == {"api": 1, "db": 1, "web": 1}
    assert story.sync == "Invalid"
    assert story.sync_of("web") == "Invalid"
    # Once it can be read, what is absent is gone.
    story.edit(b=None, moved=job_text("api", "2"))
    assert story.running == {"api": 1, "db": 1}
    assert story.sync == "Synced"


def test_a_job_that_moved_into_a_broken_file_runs_on_as_it_was(story: Story) -> None:
    """Over further commits and a restart, too."""
    story.edit(a=job_text("web"), b=job_text("api"))
    story.edit(a=None, all=f"{job_text('web', '2')}---\n{BROKEN}")
    story.edit(readme="# words\n")
    story.tree.restart()
    story.apply()
    assert story.running == {"api": 1, "web": 1}
    story.edit(all=job_text("web"))
    assert story.running == {"api": 1, "web": 1}
    assert story.sync == "Synced"


def test_two_documents_of_one_identity_are_both_invalid_and_the_job_runs_on(story: Story) -> None:
    story.edit(a=job_text("web"), b=job_text("api"))
    before = story.ids
    story.edit(copy=job_text("web", "2"), c=job_text("db"))
    assert story.running == {"api": 1, "db": 1, "web": 1}
    assert before < story.ids
    assert story.sync_of("web") == "Invalid"
    assert "a.yaml" in story.errors
    assert "copy.yaml" in story.errors
    # The first copy removed: what the other one says is now meant.
    story.edit(a=None)
    assert story.running == {"api": 1, "db": 1, "web": 1}
    assert story.sync == "Synced"
    assert story.cluster.state.jobs["web"].version == 2


@pytest.mark.parametrize("template", [None, TEMPLATE.replace("{{ seconds }}", "{{ nothing }}"), BROKEN])
def test_a_template_that_is_missing_or_invalid_holds_its_jobs_alone(
    story: Story, template: str | None
) -> None:
    story.edit(base=TEMPLATE, a=templated("web"), b=templated("api"), c=job_text("db"))
    before = story.ids
    story.edit(base=template, a=templated("web", "2"), c=job_text("db", "2"))
    assert story.running == {"api": 1, "db": 1, "web": 1}
    assert {story.sync_of("web"), story.sync_of("api")} == {"Invalid"}
    assert story.sync_of("db") == "Synced"
    assert story.cluster.state.jobs["db"].version == 2
    assert len(before & story.ids) == 2
    story.edit(base=TEMPLATE)
    assert story.sync == "Synced"
    assert (story.cluster.state.jobs["web"].version, story.cluster.state.jobs["api"].version) == (2, 1)


@pytest.mark.parametrize("broken", ["kind: Job\nname: web\ngroups: 3\n", "kind: Job\nname: web\n", BROKEN])
def test_an_invalid_document_stays_at_its_last_good_version_and_all_valid_ones_go_ahead(
    story: Story, broken: str
) -> None:
    story.edit(a=counted("web", 3), b=job_text("api"))
    before = story.ids
    story.edit(a=broken, b=counted("api", 2), c=job_text("db"))
    assert story.running == {"api": 2, "db": 1, "web": 3}
    assert before < story.ids
    assert story.sync == "Invalid"
    assert "a.yaml" in story.errors


def test_an_invalid_node_or_cluster_document_stays_at_its_last_good_version(story: Story) -> None:
    """No drain ends by a typing error, and no setting falls back to its default."""
    node = "kind: Node\nname: node-2\ndrain: {deadline: 1h}\n"
    cluster = "kind: Cluster\nname: cluster\nplacement: spread\n"
    story.edit(a=job_text("web"), node=node, cluster=cluster)
    for broken in ("drain: [3]\n", "drain: {deadline: soon}\n"):
        story.edit(node=f"kind: Node\nname: node-2\n{broken}", cluster="kind: Cluster\nplacement: 7\n")
        drained = story.cluster.state.node_named("node-2")
        assert drained is not None
        assert drained.drain is not None
        assert story.cluster.state.settings.placement == "spread"
        assert story.sync == "Invalid"
    story.edit(node=None, cluster=None)
    drained = story.cluster.state.node_named("node-2")
    assert drained is not None
    assert (drained.drain, story.cluster.state.settings.placement) == (None, "binpack")


def test_what_another_job_depends_on_is_not_removed(story: Story) -> None:
    web = f"{job_text('web')}depends_on: [db]\n"
    story.edit(a=web, b=job_text("db"), c=job_text("api"))
    before = story.ids
    story.edit(b=None)
    assert story.running == {"api": 1, "db": 1, "web": 1}
    assert story.ids == before
    assert "depends_on" in story.errors
    assert "a.yaml" in story.errors
    story.edit(a=job_text("web"))
    assert story.running == {"api": 1, "web": 1}


def test_an_emptied_tree_is_held_over_restarts_and_commits_until_exactly_that_is_confirmed(
    story: Story,
) -> None:
    story.edit(a=counted("web", 2), b=job_text("api"))
    before = story.ids
    held = story.edit(a=None, b=None)
    assert held is not None
    assert held.removes == ("api", "web")
    story.tree.restart()
    again = story.apply()
    assert again is not None
    assert again.confirm == held.confirm
    more = story.edit(notes="# nothing\n")
    assert more is not None
    assert more.confirm == held.confirm
    assert story.ids == before
    assert story.sync == "OutOfSync"
    assert story.edit(cluster="kind: Cluster\nname: cluster\nconfirm: 0123456789abcdef\n") is not None
    assert story.ids == before
    assert story.edit(cluster=confirming_document(held)) is None
    assert story.running == {}


def test_a_confirmation_does_not_wait_for_the_next_accident(story: Story) -> None:
    story.edit(a=counted("web", 2), b=job_text("api"))
    held = story.edit(a=None, b=None)
    assert held is not None
    story.edit(cluster=confirming_document(held))
    story.edit(a=counted("web", 2), b=job_text("api"))
    assert story.running == {"api": 1, "web": 2}
    assert story.edit(a=None, b=None) is not None
    assert story.running == {"api": 1, "web": 2}


def test_renaming_every_job_is_held_and_a_revision_that_ends_less_releases_it(story: Story) -> None:
    story.edit(a=job_text("web"), b=job_text("api"))
    held = story.edit(a=job_text("web-2"), b=job_text("api-2"))
    assert held is not None
    assert story.running == {"api": 1, "web": 1}
    assert story.edit(a=job_text("web")) is None
    assert story.running == {"api-2": 1, "web": 1}


@pytest.mark.parametrize(
    "change", [None, counted("db", 2, "protect: false\n").replace("count: 2", "count: 0"), "suspended"]
)
def test_a_protected_job_is_not_ended_by_the_revision_that_lifts_its_protection(
    story: Story, change: str | None
) -> None:
    """As last applied: whoever removes it with its protection in one commit has to say so."""
    story.edit(a=counted("web", 3), b=counted("db", 2, "protect: true\n"))
    before = story.ids
    text = counted("db", 2, "suspended: true\n") if change == "suspended" else change
    held = story.edit(b=text, c=job_text("api"))
    assert held is not None
    assert held.removes == ("db",)
    assert "protected" in held.reason
    assert story.ids == before
    assert story.edit(b=counted("db", 2, "protect: false\n")) is None
    assert story.edit(b=text) is None
    assert story.running == {"api": 1, "web": 3}


def test_removing_most_node_documents_is_held(story: Story) -> None:
    nodes = {f"n{number}": f"kind: Node\nname: node-{number}\n" for number in range(3)}
    story.edit(a=job_text("web"), **nodes)
    assert story.edit(n0=None, n1=None) is not None
    assert story.edit(n1=nodes["n1"]) is None


def test_more_than_half_by_count_suspension_and_removal_together_is_held(story: Story) -> None:
    story.edit(a=counted("a", 2), b=counted("b", 2), c=counted("c", 2), d=counted("d", 1))
    before = story.ids
    held = story.edit(a=counted("a", 2, "suspended: true\n"), b=counted("b", 1), c=None, d=counted("d", 2))
    assert held is not None
    assert held.removes == ("a", "b", "c")
    assert story.ids == before
    assert story.edit(a=counted("a", 2)) is None, "3 of 7"
    assert story.running == {"a": 2, "b": 1, "d": 2}


def test_hold_off_and_back_on_count_as_last_applied(story: Story) -> None:
    """The very revision that switches it off is still held."""
    off = "kind: Cluster\nname: cluster\nhold: off\n"
    story.edit(a=counted("a", 2), b=counted("b", 2), c=counted("c", 2))
    assert story.edit(a=None, b=None, cluster=off) is not None
    story.edit(a=counted("a", 2), b=counted("b", 2))
    assert story.edit(a=None, b=None) is None
    assert story.running == {"c": 2}


def test_a_root_or_ref_that_is_gone_changes_nothing_and_comes_back(story: Story, tmp_path: Path) -> None:
    story.edit(a=job_text("web"), b=job_text("api"))
    before = story.ids
    specs, away = tmp_path / "specs", tmp_path / "away"
    specs.rename(away)
    assert "specs" in story.unreadable()
    story.tree.restart()
    story.unreadable()
    if isinstance(story.tree, GitTree):
        away.rename(specs)
        story.tree.repo.git("checkout", "--quiet", "-b", "other")
        story.tree.repo.git("branch", "-D", "main")
        assert "main" in story.unreadable()
        story.tree.repo.git("checkout", "--quiet", "-b", "main")
    else:
        specs.write_text("a file in place of the folder")
        story.unreadable()
        specs.unlink()
        away.rename(specs)
    assert story.apply() is None
    assert story.ids == before


def test_an_empty_folder_in_place_of_a_mount_is_an_emptied_tree_and_held(
    story: Story, tmp_path: Path
) -> None:
    """Nobody can tell it from one whose last file was removed: so it is held, and ends nothing."""
    story.edit(a=job_text("web"), b=job_text("api"))
    before = story.ids
    if isinstance(story.tree, FolderTree):
        shutil.rmtree(tmp_path / "specs")
        (tmp_path / "specs").mkdir()
        assert story.apply() is not None
    else:
        assert story.edit(a=None, b=None) is not None
    assert story.ids == before
