"""One form for what means the same: writing a default out, reordering, reformatting or moving changes no digest."""

import json
from typing import Any, Final

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.sources.trees import digest_of, load, the_job
from trueup.models.codec import from_json, to_json, to_plain
from trueup.models.job import Job
from trueup.sources.job_spec import job_from_spec

MINIMAL: Final = "kind: Job\nname: web\ngroups: [{tasks: [{config: {command: [sleep, '9']}}]}]\n"

WRITTEN_OUT: Final = """\
kind: Job
name: web
type: service
priority: 50
labels: {}
regions: []
depends_on: []
protect: false
suspended: false
frozen: false
restart_token: ""
constraints: []
affinities: []
spreads: []
update:
  max_parallel: 1
  canary: 0
  auto_promote: false
  promote: ""
  auto_revert: false
  min_healthy_time: 10s
  healthy_deadline: 300s
  progress_deadline: 0h10m
groups:
  - name: web
    count: 1
    ports: []
    services: []
    shutdown_delay: 0ms
    restart: {attempts: 2, interval: 30m, delay: 15s, mode: fail}
    reschedule: {unlimited: true, delay: 30s, delay_function: exponential, max_delay: 1h}
    disconnect: {lost_after: 0s}
    volumes: []
    constraints: []
    affinities: []
    spreads: []
    tasks:
      - name: web
        driver: process
        config: {command: [sleep, "9"]}
        env: {}
        resources: {cpu: 0.10, memory: 65536KiB}
        checks: []
        volumes: {}
        files: []
        artifacts: []
        constraints: []
        kill_signal: SIGTERM
        kill_timeout: 5000ms
        logs: {max_files: 10, max_size: 10240KiB}
"""

SAME: Final = {
    "every default written out": WRITTEN_OUT,
    "as JSON": json.dumps(yaml.safe_load(MINIMAL)),
    "with comments and other quotes": MINIMAL.replace("sleep", '"sleep"').replace(
        "groups", "# a word\n\n\ngroups"
    ),
    "with an anchor": "kind: Job\nname: web\ngroups: [{tasks: [{config: {command: &c [sleep, '9']}}]}]\n",
    "with Windows line ends": MINIMAL.replace("\n", "\r\n"),
    "a parsed number as text": MINIMAL.replace("'9'", "9"),
}


@pytest.mark.parametrize("text", SAME.values(), ids=SAME.keys())
def test_what_means_the_same_is_the_same_job(text: str) -> None:
    assert the_job(text) == the_job(MINIMAL)
    assert digest_of(text) == digest_of(MINIMAL)


def test_a_batch_jobs_defaults_are_its_own() -> None:
    text = MINIMAL + "type: batch\n"
    written = text.replace(
        "{tasks",
        "{restart: {attempts: 3, interval: 24h},"
        " reschedule: {attempts: 1, interval: 24h, delay: 5s, delay_function: constant}, tasks",
    )
    assert the_job(written) == the_job(text)


@pytest.mark.parametrize("key", ["type", "restart_token"])
def test_what_a_task_sees_is_in_the_digest(key: str) -> None:
    assert digest_of(MINIMAL + f"{key}: batch\n") != digest_of(MINIMAL)


RICH: Final = """\
kind: Job
name: web
regions: [eu, us]
depends_on: []
groups:
  - name: a
    count: 2
    ports: [{name: http, to: 80}, {name: admin, port: 9000}]
    services: [{name: shop, port: http}, {name: back, port: admin}]
    volumes: [{name: data, source: d}, {name: logs, source: l}]
    tasks:
      - name: init
        config: {image: "x:1", args: [init]}
        lifecycle: {hook: prestart}
      - name: server
        config: {image: "x:1"}
        env: {A: "1", B: "${PORT_http}"}
        volumes: {data: /d, logs: /l}
        files: [{path: a, content: x}, {path: b, secret: s}]
        checks: [{type: http, port: http}]
  - name: b
    tasks: [{config: {command: [sleep, "1"]}}]
"""


def test_named_things_may_be_in_any_order() -> None:
    plain = yaml.safe_load(RICH)
    turned = _reversed_names(plain)
    assert turned != plain
    assert digest_of(json.dumps(turned)) == digest_of(RICH)


def _reversed_names(value: Any) -> Any:
    """The same with keys and lists of named things the other way round; tasks keep their order."""
    if isinstance(value, dict):
        return {
            key: held if key == "args" else _reversed_names(held) for key, held in reversed(value.items())
        }
    if isinstance(value, list):
        items = [_reversed_names(held) for held in value]
        return items[::-1] if all(isinstance(held, dict) for held in items) else items
    return value


def test_moving_a_document_changes_nothing_but_its_place() -> None:
    before = load({"a.yaml": MINIMAL}).jobs["web"]
    after = load({"deep/down/b.yml": f"# moved\n---\n{MINIMAL}"}).jobs["web"]
    assert before.job == after.job
    assert before.place != after.place


def test_moving_a_document_with_a_source_changes_nothing() -> None:
    job = "kind: Job\nname: web\ngroups: [{tasks: [{config: {image: x}, files: [{path: a, source: SOURCE}]}]}]\n"
    before = {"web.yaml": job.replace("SOURCE", "./app.conf"), "app.conf": "hello"}
    after = {"jobs/web.yaml": job.replace("SOURCE", "../conf/app.conf"), "conf/app.conf": "hello"}
    written = {"web.yaml": job.replace("source: SOURCE", "content: hello")}
    assert the_job(before) == the_job(after) == the_job(written)


def test_a_job_made_from_a_template_is_the_job_written_out() -> None:
    template = (
        "kind: Template\nname: base\nparameters: {seconds: {type: string}}\n"
        'job: {groups: [{tasks: [{config: {command: [sleep, "{{ seconds }}"]}}]}]}\n'
    )
    job = "kind: Job\nname: web\ntemplate: base\nparameters: {seconds: 9}\n"
    assert the_job({"t.yaml": template, "a.yaml": job}) == the_job(MINIMAL)


@pytest.mark.parametrize("text", [MINIMAL, WRITTEN_OUT, RICH])
def test_a_job_is_read_back_from_what_is_stored(text: str) -> None:
    job = the_job(text)
    assert job_from_spec(to_plain(job)) == job
    assert from_json(to_json(job), Job) == job


def test_a_spec_by_hand_is_read_like_a_document() -> None:
    spec = {"name": "web", "groups": [{"tasks": [{"config": {"command": ["sleep", "9"]}}]}]}
    assert job_from_spec(spec) == the_job(MINIMAL)
    assert "kind" not in spec


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"priority": 0}, "priority: 0 is less than the minimum of 1"),
        ({"template": "base"}, "template: a job of a state is rendered already"),
        ({"groups": []}, "groups: is empty"),
        (
            {"groups": [{"tasks": [{"config": {"image": "x"}, "files": [{"path": "a", "source": "b"}]}]}]},
            "groups[0].tasks[0].files[0].source: a job of a state holds its files already",
        ),
        (
            {f"n{number}": 1 for number in range(9)},
            "n0: unknown key; n1: unknown key; n2: unknown key (and 6 more)",
        ),
    ],
)
def test_a_bad_spec_by_hand_is_a_value_error_that_says_where(change: dict[str, Any], message: str) -> None:
    spec = {"name": "web", "groups": [{"tasks": [{"config": {"command": ["sleep"]}}]}], **change}
    with pytest.raises(ValueError) as raised:
        job_from_spec(spec)
    assert message in str(raised.value)


# Any job, written in any way

texts = st.text(st.characters(codec="ascii", exclude_characters="$", exclude_categories=["Cc"]), max_size=5)
names = st.from_regex(r"\A[a-z][a-z0-9]{0,5}\Z")
durations = st.sampled_from(["0s", "500ms", "10s", "1h30m", "15s", "2h"])
spans = st.sampled_from(["500ms", "30m", "24h", "1m30s"])


def optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


tasks = st.fixed_dictionaries(
    {"config": st.fixed_dictionaries({"command": st.lists(st.sampled_from(["a", "-b", "1.10"]), min_size=1)})},
    optional={
        "env": st.dictionaries(st.from_regex(r"\A[A-Z]{1,4}\Z"), texts),
        "resources": optional(cpu=st.sampled_from([0.1, 0.25, 1, 2]), memory=st.sampled_from(["64MiB", "1GiB"])),
        "kill_timeout": durations,
        "kill_signal": st.sampled_from(["SIGTERM", "SIGINT"]),
        "logs": optional(max_files=st.integers(1, 10), max_size=st.sampled_from(["10MiB", "1KiB"])),
        "user": names,
    },
)  # fmt: skip
groups = st.fixed_dictionaries(
    {"tasks": tasks.map(lambda task: [task])},
    optional={
        "count": st.integers(0, 3),
        "ports": st.lists(
            st.fixed_dictionaries({"name": names}, optional={"to": st.integers(1, 9)}),
            max_size=3,
            unique_by=lambda port: port["name"],
        ),
        "restart": optional(attempts=st.integers(0, 3), interval=spans, delay=durations),
        "reschedule": optional(delay=durations, max_delay=spans),
        "shutdown_delay": durations,
    },
)
jobs = st.fixed_dictionaries(
    {
        "kind": st.just("Job"),
        "name": st.just("web"),
        "groups": st.dictionaries(names, groups, min_size=1, max_size=3).map(
            lambda held: [{"name": name, **group} for name, group in held.items()]
        ),
    },
    optional={
        "type": st.sampled_from(["service", "batch"]),
        "priority": st.sampled_from([1, 50, 100]),
        "labels": st.dictionaries(names, texts),
        "regions": st.lists(names, unique=True, max_size=3),
        "update": optional(max_parallel=st.integers(0, 2), min_healthy_time=st.sampled_from(["1s", "10s"])),
        "protect": st.booleans(),
        "restart_token": st.sampled_from(["", "1"]),
    },
)  # fmt: skip


@given(jobs)
@settings(max_examples=60)
def test_rendering_is_deterministic_and_stable_under_its_own_output(spec: dict[str, Any]) -> None:
    text = json.dumps(spec)
    job = the_job(text)
    assert the_job(text) == job
    assert job_from_spec(to_plain(job)) == job


@given(jobs, st.booleans(), st.integers(2, 6), st.integers(20, 120))
@settings(max_examples=60)
def test_however_a_job_is_written_it_is_the_same(
    spec: dict[str, Any], flow: bool, indent: int, width: int
) -> None:
    text = yaml.dump(
        _reversed_names(spec), Dumper=yaml.CSafeDumper, default_flow_style=flow, indent=indent, width=width
    )
    assert the_job(text) == the_job(json.dumps(spec))
