"""Templates: parameters put in on values, a job's own fields laid over, faults placed in job and template."""

import time
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.sources.trees import errors_of, load, the_error, the_job
from trueup.models.codec import to_plain

TEMPLATE: Final = """\
kind: Template
name: base
parameters:
  image: {type: string}
  count: {type: integer, minimum: 1, default: 2}
job:
  labels: {from: template, image: "{{ image }}"}
  groups:
    - name: app
      count: "{{ count }}"
      ports: [{name: http, to: 80}]
      tasks:
        - name: server
          config: {image: "{{ image }}", args: [serve, "--tag={{ image }}"]}
          env: {MODE: prod, LEVEL: info}
"""


def rendered(job: str, template: str = TEMPLATE) -> dict[str, Any]:
    """The plain form of the job `web` made from the template."""
    plain: dict[str, Any] = to_plain(
        the_job({"t.yaml": template, "a.yaml": f"kind: Job\nname: web\ntemplate: base\n{job}"})
    )
    return plain


def test_parameters_keep_their_type_where_they_stand_alone() -> None:
    job = rendered("parameters: {image: shop, count: 5}\n")
    assert job["groups"][0]["count"] == 5
    assert job["groups"][0]["tasks"][0]["config"] == {"image": "shop", "args": ["serve", "--tag=shop"]}


def test_defaults_fill_in_what_is_not_given() -> None:
    assert rendered("parameters: {image: shop}\n")["groups"][0]["count"] == 2


def test_a_text_parameter_is_taken_as_written() -> None:
    task = rendered("parameters: {image: 1.10}\n")["groups"][0]["tasks"][0]
    assert task["config"] == {"image": "1.10", "args": ["serve", "--tag=1.10"]}


def test_a_parameter_cannot_become_yaml_nor_another_parameter() -> None:
    hostile = "x\\nprivileged: true{{ count }}"
    job = rendered(f'parameters: {{image: "{hostile}"}}\n')
    assert job["groups"][0]["tasks"][0]["config"]["image"] == "x\nprivileged: true{{ count }}"


def test_own_fields_are_laid_over() -> None:
    job = rendered(
        """\
parameters: {image: shop}
labels: {team: shop, from: null}
priority: 70
groups:
  - name: app
    count: 9
    ports: [{name: admin, port: 9000}]
    tasks: [{name: server, config: {args: [other]}, env: {LEVEL: debug}}]
  - name: more
    tasks: [{config: {image: x}}]
"""
    )
    app, more = job["groups"]
    assert job["labels"] == {"team": "shop", "image": "shop"}
    assert job["priority"] == 70
    assert app["count"] == 9
    assert [port["name"] for port in app["ports"]] == ["admin", "http"]
    assert app["tasks"][0]["config"] == {"image": "shop", "args": ["other"]}
    assert app["tasks"][0]["env"] == {"MODE": "prod", "LEVEL": "debug"}
    assert more["tasks"][0]["config"] == {"image": "x"}


def test_null_removes_what_the_template_has() -> None:
    job = rendered("parameters: {image: shop}\ngroups: [{name: app, ports: null, count: null}]\n")
    assert "ports" not in job["groups"][0]
    assert "count" not in job["groups"][0]


def test_an_only_group_and_task_without_a_name_are_the_templates() -> None:
    template = "kind: Template\nname: base\njob: {groups: [{tasks: [{config: {image: x}}]}]}\n"
    job = rendered("groups: [{count: 3, tasks: [{env: {A: b}}]}]\n", template)
    assert job["groups"] == [
        {
            "name": "web",
            "count": 3,
            "tasks": [{"name": "web", "driver": "docker", "config": {"image": "x"}, "env": {"A": "b"}}],
        }
    ]


def test_a_list_or_mapping_is_put_in_whole() -> None:
    template = """\
kind: Template
name: base
parameters: {env: {type: object}, args: {type: array, items: {type: string}}}
job: {groups: [{tasks: [{config: {image: x, args: "{{ args }}"}, env: "{{ env }}"}]}]}
"""
    task = rendered("parameters: {env: {A: 012}, args: [a, 1.10]}\n", template)["groups"][0]["tasks"][0]
    assert task["env"] == {"A": "012"}
    assert task["config"]["args"] == ["a", "1.10"]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("{{{{ count }}", "{{ count }}"),
        ("a{{{{b", "a{{b"),
        ("{{count}}x", "2x"),
        ("{ {count} }", "{ {count} }"),
    ],
)
def test_braces(written: str, read: str) -> None:
    template = TEMPLATE.replace("MODE: prod", f'MODE: "{written}"')
    assert rendered("parameters: {image: x}\n", template)["groups"][0]["tasks"][0]["env"]["MODE"] == read


def test_the_cluster_document_has_defaults_that_go_before_the_templates_own() -> None:
    tree = {
        "t.yaml": TEMPLATE,
        "c.yaml": "kind: Cluster\nname: cluster\nparameters: {count: 7, image: 1.10, other: x}\n",
        "a.yaml": "kind: Job\nname: web\ntemplate: base\n",
        "b.yaml": "kind: Job\nname: own\ntemplate: base\nparameters: {count: 3, image: x}\n",
    }
    state = load(tree)
    assert not state.errors
    group = state.jobs["web"].job.groups[0]
    assert (group.count, group.tasks[0].config.image) == (7, "1.10")
    assert state.jobs["own"].job.groups[0].count == 3
    assert state.jobs["web"].files == ("a.yaml", "t.yaml", "c.yaml")
    assert state.jobs["own"].files == ("b.yaml", "t.yaml")


FAULTS: Final = {
    "parameters: {}\n": ["a.yaml:4:13: parameters: image is missing; template base wants it in parameters"],
    "": ["a.yaml:3:11: template: image is missing; template base wants it in parameters"],
    "parameters: {image: x, count: 0}\n": ["a.yaml:4:31: parameters.count: 0 is less than the minimum of 1"],
    "parameters: {image: x, count: '3'}\n": ["a.yaml:4:31: parameters.count: expected a whole number"],
    "parameters: {imgae: x}\n": [
        'a.yaml:4:14: parameters.imgae: no parameter of template base; did you mean "image"?'
    ],
    "parameters: {image: x, cuont: 3}\n": [
        'a.yaml:4:24: parameters.cuont: no parameter of template base; did you mean "count"?'
    ],
    "parameters: {image: x, cuont: 3}\ngroups: [{name: app, cuont: 1}]\n": [
        'a.yaml:4:24: parameters.cuont: no parameter of template base; did you mean "count"?',
        'a.yaml:5:22: groups[0].cuont: unknown key; did you mean "count"?',
    ],
    "parameters: {image: x}\ngroups: [{name: other}]\n": ["a.yaml:5:10: groups[1]: tasks is missing"],
    "parameters: {image: x}\ngroups: [{name: app, services: [{name: s, port: htp}]}]\n": [
        "a.yaml:5:49: groups[0].services[0].port: 'htp' is no port of this group; did you mean \"http\"?"
    ],
    "parameters: {image: x}\ngroups: [{name: app, ports: null, tasks: [{name: server, env: {A: '${PORT_http}'}}]}]\n": [
        "a.yaml:5:67: groups[0].tasks[0].env.A: ${PORT_http} is no variable; write $${ for a literal ${"
    ],
    "parameters: {image: x}\nschedule: {cron: '@daily'}\n": [
        "a.yaml:5:1: schedule: a service job has no schedule; write type: batch"
    ],
}


@pytest.mark.parametrize(("job", "errors"), FAULTS.items())
def test_faults_of_a_templated_job_stand_in_the_job(job: str, errors: list[str]) -> None:
    text = f"kind: Job\nname: web\ntemplate: base\n{job}"
    assert errors_of({"t.yaml": TEMPLATE, "a.yaml": text}) == errors


BROKEN: Final = TEMPLATE.replace("MODE: prod", 'MODE: "${NOPE}"')
IN_TEMPLATE: Final = (
    "env.MODE: ${NOPE} is no variable (in the template, t.yaml:15:23); write $${ for a literal ${"
)


def test_a_fault_of_the_template_names_the_job_and_the_place_in_the_template() -> None:
    text = "kind: Job\nname: web\ntemplate: base\nparameters: {image: x}\n"
    assert errors_of({"t.yaml": BROKEN, "a.yaml": text}) == [f"a.yaml:3:11: groups[0].tasks[0].{IN_TEMPLATE}"]


def test_a_fault_that_both_make_points_to_the_nearest_the_job_wrote() -> None:
    job = "kind: Job\nname: web\ntemplate: base\nparameters: {image: x}\n"
    own = "groups: [{name: app, tasks: [{name: server}]}]\n"
    assert errors_of({"t.yaml": BROKEN, "a.yaml": job + own}) == [
        f"a.yaml:5:30: groups[0].tasks[0].{IN_TEMPLATE}"
    ]


@pytest.mark.parametrize("job_first", [True, False])
def test_job_and_template_of_one_file_are_told_apart(job_first: bool) -> None:
    job = "kind: Job\nname: web\ntemplate: base\nparameters: {image: x}\n"
    text = f"{job}---\n{BROKEN}" if job_first else f"{BROKEN}---\n{job}"
    error = the_error(text)
    assert (error.line, error.column) == ((3, 11) if job_first else (19, 11))
    assert f"(in the template, a.yaml:{20 if job_first else 15}:23)" in error.message


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (("{type: string}", "{type: strng}"), "t.yaml:4:17: parameters.image.type: is no type; "),
        (("{type: string}", "{$ref: '#/x'}"), "t.yaml:4:11: parameters.image.$ref: unknown key"),
        (("{type: string}", "{pattern: '(?=x)'}"), "t.yaml:4:20: parameters.image.pattern: "),
        (
            ("default: 2", "default: 0"),
            "t.yaml:5:47: parameters.count.default: 0 is less than the minimum of 1",
        ),
        (
            ('"{{ count }}"', '"{{ cuont }}"'),
            "t.yaml:10:14: job.groups[0].count: 'cuont' is no parameter of this ",
        ),
        (
            ("{MODE: prod", '{"{{ image }}": x'),
            "t.yaml:15:17: job.groups[0].tasks[0].env.{{ image }}: a key cannot",
        ),
        (
            ("MODE: prod", 'MODE: "{{ 1 }}"'),
            "t.yaml:15:23: job.groups[0].tasks[0].env.MODE: {{ begins no parameter",
        ),
        (
            ("name: http", "nmae: http"),
            "t.yaml:11:16: job.groups[0].ports[0].nmae: unknown key; did you mean ",
        ),
        (
            ("  labels:", "  template: x\n  labels:"),
            "t.yaml:7:3: job.template: template is of the job that names",
        ),
        (("      ports", "      count: 3\n      ports"), "t.yaml:11:7: job.groups[0].count: duplicate key"),
    ],
)
def test_faults_of_a_template_are_said_once_where_they_stand(change: tuple[str, str], error: str) -> None:
    state = load({"t.yaml": TEMPLATE.replace(*change), "a.yaml": "kind: Job\nname: web\ntemplate: base\n"})
    own = [str(found) for found in state.errors if found.file == "t.yaml"]
    assert len(own) == 1
    assert own[0].startswith(error)
    assert [str(found) for found in state.errors if found.file == "a.yaml"] == [
        "a.yaml:3:11: template: template 'base' is in error itself; put that right first"
    ]
    assert {(one.kind, one.name) for one in state.invalid} == {("Template", "base"), ("Job", "web")}


def test_a_missing_template_holds_its_jobs() -> None:
    state = load({"t.yaml": TEMPLATE, "a.yaml": "kind: Job\nname: web\ntemplate: bsae\n"})
    assert [str(error) for error in state.errors] == [
        "a.yaml:3:11: template: there is no template 'bsae'; did you mean \"base\"?"
    ]
    assert [one.name for one in state.invalid] == ["web"]


def test_a_list_has_no_place_in_a_text() -> None:
    template = """\
kind: Template
name: base
parameters: {list: {}}
job: {groups: [{tasks: [{config: {image: "x{{ list }}"}}]}]}
"""
    job = "kind: Job\nname: web\ntemplate: base\nparameters: {list: [1]}\n"
    assert errors_of({"t.yaml": template, "a.yaml": job}) == [
        "a.yaml:3:11: template: parameter list is a list or mapping, which has no place in a text (t.yaml:4:42)"
    ]


def test_a_rendered_job_is_bounded() -> None:
    body = ", ".join(f'k{number}: "{{{{ list }}}}"' for number in range(200))
    template = f"kind: Template\nname: base\nparameters: {{list: {{}}}}\njob: {{labels: {{{body}}}}}\n"
    job = f"kind: Job\nname: web\ntemplate: base\nparameters: {{list: [{'1, ' * 1000}1]}}\n"
    (error,) = errors_of({"t.yaml": template, "a.yaml": job})
    assert "the rendered job is too large" in error


def test_a_check_that_would_take_forever_is_given_up() -> None:
    numbers = ", ".join(str(number) for number in range(5000))
    template = f"kind: Template\nname: base\nparameters: {{x: {{items: {{enum: [{numbers}]}}}}}}\njob: {{}}\n"
    job = f"kind: Job\nname: web\ntemplate: base\nparameters: {{x: [{numbers}]}}\n"
    before = time.process_time()
    assert errors_of({"t.yaml": template, "a.yaml": job}) == [
        "a.yaml:4:17: parameters.x: takes too long to check against its schema; make the schema simpler"
    ]
    assert time.process_time() - before < 2


nasty = st.text(
    st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("{}$ \"'\\:#-"), min_size=1, max_size=30
)


@given(nasty)
def test_any_text_of_a_parameter_arrives_as_it_is(text: str) -> None:
    quoted = "'" + text.replace("'", "''") + "'"
    if "${" in text or any(mark in text for mark in "\x85\u2028\u2029"):
        return
    job = rendered(f"parameters: {{image: {quoted}}}\n")
    assert job["groups"][0]["tasks"][0]["config"]["image"] == text
