"""From snapshots to desired states: what is read again, what is held, and what an absence proves."""

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.sources.trees import a_snapshot, load
from trueup.models.desired import Place
from trueup.models.errors import SpecError
from trueup.models.ids import RevisionId
from trueup.models.revision import Commit
from trueup.models.source_error import SourceUnavailable
from trueup.sources.desired import SpecLoader
from trueup.sources.snapshot import FileKey, Snapshot, SpecFile

TEMPLATE = (
    "kind: Template\nname: base\nparameters: {image: {type: string, default: x}}\n"
    'job: {groups: [{tasks: [{config: {image: "{{ image }}"}}]}]}\n'
)


def a_job(name: str = "web", extra: str = "") -> str:
    return f"kind: Job\nname: {name}\n{extra}groups: [{{tasks: [{{config: {{image: x}}}}]}}]\n"


def templated(name: str = "web", extra: str = "") -> str:
    return f"kind: Job\nname: {name}\ntemplate: base\n{extra}"


def invalid_names(texts: dict[str, str]) -> list[tuple[str, str]]:
    return [(one.kind, one.name) for one in load(texts).invalid]


def test_a_tree_of_every_kind() -> None:
    state = load(
        {
            "t.yaml": TEMPLATE,
            "jobs/web.yaml": "# the shop\n\n" + templated(),
            "jobs/db.yml": a_job("db") + "---\n" + a_job("cache"),
            "node.yaml": "kind: Node\nname: node-7\nlabels: {disk: ssd}\ndrain: {}\n",
            "cluster.yaml": "kind: Cluster\nname: cluster\nplacement: spread\n",
            "readme.md": "# no document",
        }
    )
    assert not state.errors
    assert list(state.jobs) == ["cache", "db", "web"]
    assert list(state.templates) == ["base"]
    assert state.nodes["node-7"].drain is not None
    assert state.cluster is not None
    assert state.cluster.placement == "spread"
    assert state.jobs["web"].place == Place(file="jobs/web.yaml", line=3)
    assert state.jobs["web"].files == ("jobs/web.yaml", "t.yaml")
    assert state.jobs["web"].template == "base"
    assert state.jobs["cache"].place == Place(file="jobs/db.yml", line=5)
    assert state.complete


def test_an_unchanged_tree_is_not_parsed_again() -> None:
    loader = SpecLoader()
    texts = {f"{name}.yaml": a_job(name) for name in ("a", "b", "c")}
    first = loader.load(a_snapshot(texts))
    assert loader.parsed == 3
    second = loader.load(a_snapshot(texts, revision="r2"))
    assert loader.parsed == 3
    assert second.commit.id == "r2"
    assert second.jobs == first.jobs


def test_only_a_changed_file_is_parsed_and_what_is_made_from_it_rendered() -> None:
    loader = SpecLoader()
    texts = {"t.yaml": TEMPLATE, "a.yaml": templated("a"), "b.yaml": templated("b"), "c.yaml": a_job("c")}
    first = loader.load(a_snapshot(texts))
    second = loader.load(a_snapshot({**texts, "t.yaml": TEMPLATE.replace("default: x", "default: y")}))
    assert loader.parsed == 5
    assert second.jobs["a"].job.groups[0].tasks[0].config.image == "y"
    assert second.jobs["c"] is first.jobs["c"]
    third = loader.load(a_snapshot({**texts, "a.yaml": templated("a", "priority: 3\n")}))
    assert loader.parsed == 7  # the template went back too
    assert third.jobs["a"].job.priority == 3


def test_a_template_that_comes_back_as_it_was_renders_the_same() -> None:
    loader = SpecLoader()
    texts = {"t.yaml": TEMPLATE, "a.yaml": templated("a")}
    first = loader.load(a_snapshot(texts))
    loader.load(a_snapshot({**texts, "t.yaml": TEMPLATE.replace("default: x", "default: y")}))
    assert loader.load(a_snapshot(texts)).jobs == first.jobs


def test_a_removed_job_is_absent_and_a_return_is_seen() -> None:
    loader = SpecLoader()
    both = {"a.yaml": a_job("a"), "b.yaml": a_job("b")}
    loader.load(a_snapshot(both))
    assert list(loader.load(a_snapshot({"a.yaml": a_job("a")})).jobs) == ["a"]
    assert list(loader.load(a_snapshot(both)).jobs) == ["a", "b"]


def test_a_lost_content_is_an_error_of_the_source_and_the_next_load_is_whole() -> None:
    def lost() -> bytes:
        raise SourceUnavailable("gone")

    loader = SpecLoader()
    good = a_snapshot({"a.yaml": a_job("a"), "b.yaml": a_job("b")})
    key = FileKey(0, "b.yaml")
    files = {**good.files, key: SpecFile(root=0, path="b.yaml", digest="other", content=lost)}
    with pytest.raises(SourceUnavailable):
        loader.load(Snapshot(commit=good.commit, files=files))
    assert list(loader.load(good).jobs) == ["a", "b"]


def test_an_invalid_document_is_named_and_all_others_go_ahead() -> None:
    state = load({"a.yaml": a_job("a", "priority: 0\n"), "b.yaml": a_job("b")})
    assert [(one.kind, one.name, one.file) for one in state.invalid] == [("Job", "a", "a.yaml")]
    assert list(state.jobs) == ["b"]
    assert state.complete


@pytest.mark.parametrize(
    "text",
    ["a: [", "kind: Pod\nname: a\n", "name: a\n", "kind: Job\nname: 12\n", "\xff\x00", "- a\n", "a: 1\n"],
)
def test_where_a_document_cannot_be_known_an_absence_proves_nothing(text: str) -> None:
    state = load({"a.yaml": text, "b.yaml": a_job("b")})
    assert not state.complete
    assert state.unreadable_files == ("a.yaml",)
    assert len(state.errors) >= 1
    assert list(state.jobs) == ["b"]


def test_files_a_source_refuses_are_errors_and_prove_no_absence() -> None:
    error = SpecError(file="big.yaml", message="is larger than 1 MiB")
    state = load({"b.yaml": a_job("b")}, errors=(error,))
    assert state.errors == (error,)
    assert state.unreadable_files == ("big.yaml",)
    assert list(state.jobs) == ["b"]


def test_a_pointer_of_git_lfs_is_an_error() -> None:
    state = load({"a.yaml": "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n"})
    assert [str(error) for error in state.errors] == [
        "a.yaml: is a pointer of git LFS; keep specs in git itself"
    ]
    assert not state.complete


def test_two_documents_of_one_identity_are_both_invalid() -> None:
    state = load({"a.yaml": a_job(), "b/c.yaml": a_job("other") + "---\n" + a_job()})
    assert [str(error) for error in state.errors] == [
        "a.yaml:2:7: name: Job 'web' is in b/c.yaml:6 too; keep one of them, or give it another name",
        "b/c.yaml:6:7: name: Job 'web' is in a.yaml:2 too; keep one of them, or give it another name",
    ]
    assert list(state.jobs) == ["other"]
    assert {one.name for one in state.invalid} == {"web"}


def test_a_job_and_a_template_may_share_a_name() -> None:
    assert not load({"a.yaml": TEMPLATE + "---\n" + templated("base")}).errors


def test_more_than_one_cluster_document_is_an_error_whatever_their_names() -> None:
    text = "kind: Cluster\nname: a\n---\nkind: Cluster\nname: b\n"
    assert invalid_names({"a.yaml": text}) == [("Cluster", "a"), ("Cluster", "b")]


def test_several_roots_make_one_tree() -> None:
    one, other = a_snapshot({"a.yaml": a_job("a")}), a_snapshot({"a.yaml": a_job("b")})
    files = {
        **one.files,
        **{FileKey(1, key.path): replace(file, root=1) for key, file in other.files.items()},
    }
    assert list(SpecLoader().load(Snapshot(commit=one.commit, files=files)).jobs) == ["a", "b"]


# Cluster


def test_while_the_cluster_document_is_in_error_its_last_good_parameters_go_on() -> None:
    loader = SpecLoader()
    cluster = "kind: Cluster\nname: cluster\nparameters: {image: y}\n"
    texts = {"t.yaml": TEMPLATE, "a.yaml": templated()}
    first = loader.load(a_snapshot({**texts, "c.yaml": cluster}))
    for broken in (cluster + "placement: nowhere\n", cluster + "a: ["):
        state = loader.load(a_snapshot({**texts, "c.yaml": broken}))
        assert state.errors
        assert state.jobs == first.jobs
        assert state.cluster is None
    assert loader.load(a_snapshot(texts)).jobs["web"].job.groups[0].tasks[0].config.image == "x"


def test_a_job_that_may_need_an_unreadable_cluster_document_is_held() -> None:
    cluster = "kind: Cluster\nname: cluster\nparameters: {image: y}\na: ["
    texts = {"t.yaml": TEMPLATE, "a.yaml": templated(), "b.yaml": templated("b", "parameters: {image: x}\n")}
    state = load({**texts, "c.yaml": cluster})
    assert list(state.jobs) == ["b"]
    assert str(state.errors[0]) == (
        "a.yaml:3:11: template: waits for the Cluster document, which may set image and is in error;"
        " put that right first"
    )


def test_a_broken_file_that_can_hold_no_cluster_document_holds_no_templated_job() -> None:
    state = load({"t.yaml": TEMPLATE, "a.yaml": templated(), "c.yaml": "a: ["})
    assert list(state.jobs) == ["web"]


# source


def with_source(source: str) -> str:
    return (
        "kind: Job\nname: web\ngroups: [{tasks: [{config: {image: x}, "
        f"files: [{{path: local/app.conf, source: {source}}}]}}]}}]\n"
    )


def test_a_source_is_read_from_beside_the_document() -> None:
    state = load({"jobs/web.yaml": with_source("./app.conf"), "jobs/app.conf": "listen ${PORT_http}\n"})
    (file,) = state.jobs["web"].job.groups[0].tasks[0].files
    assert file.content == "listen ${PORT_http}\n"
    assert state.jobs["web"].files == ("jobs/web.yaml", "jobs/app.conf")


def test_a_source_of_a_template_is_beside_the_template() -> None:
    template = (
        "kind: Template\nname: base\njob: {groups: [{tasks: [{config: {image: x},"
        " files: [{path: a, source: app.conf}]}]}]}\n"
    )
    state = load({"t/base.yaml": template, "t/app.conf": "hello", "web.yaml": templated()})
    assert state.jobs["web"].job.groups[0].tasks[0].files[0].content == "hello"


def test_a_changed_source_changes_the_job_and_parses_nothing() -> None:
    loader = SpecLoader()
    texts = {"web.yaml": with_source("app.conf"), "app.conf": "one"}
    first = loader.load(a_snapshot(texts))
    second = loader.load(a_snapshot({**texts, "app.conf": "two"}))
    assert loader.parsed == 1
    assert first.jobs["web"].job != second.jobs["web"].job
    assert loader.load(a_snapshot(texts)).jobs == first.jobs


def test_a_source_may_come_later_and_be_another_yaml_file() -> None:
    loader = SpecLoader()
    texts = {"web.yaml": with_source("other.yaml")}
    state = loader.load(a_snapshot(texts))
    assert [str(error) for error in state.errors] == [
        "web.yaml:3:79: groups[0].tasks[0].files[0].source: there is no file other.yaml"
    ]
    state = loader.load(a_snapshot({**texts, "other.yaml": a_job("other")}))
    assert not state.errors
    assert state.jobs["web"].job.groups[0].tasks[0].files[0].content == a_job("other")


@pytest.mark.parametrize(
    ("texts", "unusable", "message"),
    [
        ({"app.conf": b"\xff\xfe"}, {}, "app.conf is not UTF-8; fetch binary files as artifacts"),
        (
            {"app.conf": "version https://git-lfs.github.com/spec/v1\n"},
            {},
            "app.conf is a pointer of git LFS; keep it in git itself, or use artifacts",
        ),
        ({}, {FileKey(0, "app.conf"): "is larger than 1 MiB"}, "app.conf is larger than 1 MiB"),
    ],
)
def test_a_source_that_cannot_be_had_is_an_error_of_its_job(
    texts: dict[str, str | bytes], unusable: dict[FileKey, str], message: str
) -> None:
    state = load({"web.yaml": with_source("app.conf"), **texts}, unusable=unusable)
    (error,) = state.errors
    assert str(error) == f"web.yaml:3:79: groups[0].tasks[0].files[0].source: {message}"
    assert [one.name for one in state.invalid] == ["web"]


@pytest.mark.parametrize("source", ["/etc/passwd", "../app.conf", "a/../../app.conf", '"a\\0b"'])
def test_a_source_cannot_leave_the_tree(source: str) -> None:
    (error,) = load({"web.yaml": with_source(source), "app.conf": ""}).errors
    assert error.message == "leaves the spec tree"


# depends_on


def test_a_job_that_depends_on_none_is_an_error_and_that_one_is_not_removed() -> None:
    state = load({"web.yaml": a_job("web", "depends_on: [db]\n"), "other.yaml": a_job("db-2")})
    (error,) = state.errors
    assert str(error) == (
        "web.yaml:3:14: depends_on[0]: there is no job 'db'; "
        'did you mean "db-2"? if it is to go, take it out of depends_on first'
    )
    assert [(one.name, one.file) for one in state.invalid] == [("db", ""), ("web", "web.yaml")]
    assert list(state.jobs) == ["db-2"]


def test_a_dependency_that_is_itself_invalid_is_no_second_error() -> None:
    state = load({"web.yaml": a_job("web", "depends_on: [db]\n"), "db.yaml": a_job("db", "priority: 0\n")})
    assert len(state.errors) == 1
    assert list(state.jobs) == ["web"]


def test_a_dependency_may_be_in_a_file_that_cannot_be_read() -> None:
    state = load({"web.yaml": a_job("web", "depends_on: [db]\n"), "db.yaml": "kind: Job\nname: db\n  x: ["})
    assert [error.file for error in state.errors] == ["db.yaml"]
    assert list(state.jobs) == ["web"]


def test_jobs_that_wait_for_themselves_in_a_circle_are_invalid() -> None:
    state = load(
        {
            "a.yaml": a_job("a", "depends_on: [b]\n"),
            "b.yaml": a_job("b", "depends_on: [c]\n"),
            "c.yaml": a_job("c", "depends_on: [d, a]\n"),
            "d.yaml": a_job("d"),
        }
    )
    assert [str(error) for error in state.errors] == [
        "a.yaml:3:14: depends_on[0]: waits for itself: a -> b -> c -> a; take one of them out of depends_on",
        "b.yaml:3:14: depends_on[0]: waits for itself: b -> c -> a -> b; take one of them out of depends_on",
        "c.yaml:3:17: depends_on[1]: waits for itself: c -> a -> b -> c; take one of them out of depends_on",
    ]
    assert list(state.jobs) == ["d"]


def test_a_dependency_of_a_template_is_shown_where_the_job_names_it() -> None:
    template = (
        "kind: Template\nname: base\njob: {depends_on: [db], groups: [{tasks: [{config: {image: x}}]}]}\n"
    )
    (error,) = load({"t.yaml": template, "a.yaml": templated()}).errors
    assert str(error).startswith("a.yaml:3:11: depends_on[0]: there is no job 'db'")


def test_a_long_chain_is_no_circle() -> None:
    texts = {f"j{n}.yaml": a_job(f"j{n}", f"depends_on: [j{n + 1}]\n") for n in range(1500)}
    assert not load({**texts, "j1500.yaml": a_job("j1500")}).errors


# authors


def test_a_job_is_of_the_newest_commit_that_touched_what_it_is_made_from() -> None:
    def commit(name: str) -> Commit:
        return Commit(id=RevisionId(name), author=name)

    texts = {
        "t.yaml": TEMPLATE,
        "a.yaml": templated("a"),
        "b.yaml": a_job("b"),
        "web.yaml": with_source("app.conf"),
        "app.conf": "x",
    }
    touched = {
        FileKey(0, "t.yaml"): commit("third"),
        FileKey(0, "app.conf"): commit("second"),
        FileKey(0, "a.yaml"): commit("first"),
        FileKey(0, "web.yaml"): commit("first"),
    }
    state = load(texts, touched=touched)
    assert {name: one.commit and one.commit.id for name, one in state.jobs.items()} == {
        "a": "third",
        "b": None,
        "web": "second",
    }


# whatever comes

fragments = st.sampled_from(
    [
        "kind: Job\n", "kind: Template\n", "kind: Cluster\n", "kind: Node\n", "name: web\n", "name: base\n",
        "template: base\n", "parameters: {image: x}\n", "parameters: {image: {type: string}}\n", "---\n",
        "job: {groups: [{tasks: [{config: {image: '{{ image }}'}}]}]}\n", "depends_on: [web]\n", "labels: x\n",
        "groups: [{tasks: [{config: {image: x}}]}]\n", "groups: {a: b}\n", "groups: [[], null, 3]\n", "job: []\n",
        "groups: [{tasks: [null, {config: [], env: [], checks: {}, files: 3}], ports: [1], services: {}}]\n",
        "update: []\n", "schedule: {cron: 3}\n", "<<: {a: b}\n", "hold: {stops: 3}\n", "drain: 1h\n", "- a\n",
        "constraints: [{operator: regexp, value: [}]}]\n", "notifications: [{url: {secret: 3}}]\n", "\t\n", "&a\n",
        "groups: [{count: '{{ x }}', reschedule: {interval: 3}, restart: {delay: []}}]\n", "kind: {a: b}\n",
    ]
)  # fmt: skip


@given(st.lists(st.lists(fragments, max_size=8).map("".join), max_size=3))
def test_no_tree_raises_and_every_refused_document_has_an_error(texts: list[str]) -> None:
    state = load({f"{number}.yaml": text for number, text in enumerate(texts)})
    refused = {one.file for one in state.invalid if one.file} | set(state.unreadable_files)
    assert refused <= {error.file for error in state.errors}
    for error in state.errors:
        assert error.line >= 1
        assert error.column >= 1
        lines = texts[int(error.file.removesuffix(".yaml"))].split("\n")
        assert error.line <= len(lines) + 1


@given(st.binary(max_size=60))
def test_no_bytes_raise(content: bytes) -> None:
    load({"a.yaml": content})


@given(st.permutations(["t", "a", "b", "c"]))
def test_the_order_of_files_does_not_matter(order: list[str]) -> None:
    texts = {
        "t": TEMPLATE,
        "a": templated("a", "depends_on: [b]\n"),
        "b": a_job("b"),
        "c": templated("c", "priority: 0\n"),
    }
    state = load({f"{name}.yaml": texts[name] for name in order})
    expected = load({f"{name}.yaml": text for name, text in texts.items()})
    assert msgspec.json.encode(state.invalid) == msgspec.json.encode(expected.invalid)
    assert list(state.jobs.items()) == list(expected.jobs.items())
    assert state.errors == expected.errors
