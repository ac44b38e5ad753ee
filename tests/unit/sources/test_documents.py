"""Every fault of a document is one clear error with its exact place and, where there is one, what to write instead."""

from pathlib import Path
from typing import Final

import pytest

from tests.unit.sources.trees import errors_of, load, the_error, the_job

JOB: Final = "kind: Job\nname: web\n"
TASK: Final = JOB + "groups:\n  - tasks:\n      - config: {command: [sleep, '9']}\n"
SERVED: Final = (
    JOB + "groups:\n  - ports: [{name: http}]\n    tasks:\n      - config: {command: [sleep, '9']}\n"
)
CLUSTER: Final = "kind: Cluster\nname: cluster\n"
NODE: Final = "kind: Node\nname: node-1\n"

BEGINNINGS: Final = {"": "", "job": JOB, "task": TASK, "served": SERVED, "cluster": CLUSTER, "node": NODE}


def _faults() -> list[tuple[str, list[str]]]:
    """The blocks of `faults.txt`: the text of a file, and its errors."""
    found = []
    for block in Path(__file__).with_name("faults.txt").read_text("utf-8").strip().split("\n\n")[1:]:
        beginning, *lines = block.strip("\n").split("\n")
        text = "".join(f"{line}\n" for line in lines if not line.startswith("> "))
        errors = [line.removeprefix("> ") for line in lines if line.startswith("> ")]
        found.append((BEGINNINGS[beginning.strip("[]")] + text, errors))
    return found


FAULTS: Final = _faults()


@pytest.mark.parametrize(("text", "errors"), FAULTS, ids=[errors[0] for _, errors in FAULTS])
def test_each_fault_is_named_where_it_stands(text: str, errors: list[str]) -> None:
    assert errors_of(text) == [f"a.yaml:{error}" for error in errors]


@pytest.mark.parametrize("text", [TASK, SERVED, NODE, CLUSTER, CLUSTER + "hold: off\n"])
def test_what_is_sound_has_no_errors(text: str) -> None:
    assert errors_of(text) == []


def test_all_errors_of_a_tree_are_shown_at_once() -> None:
    errors = errors_of(
        {"b.yaml": TASK + "    cout: 1\n    conut: 2\n", "a/b.yml": "kind: Pod\n", "c.yaml": "a: [\n"}
    )
    assert [error.split(": ")[0] for error in errors] == [
        "a/b.yml:1:7",
        "b.yaml:6:5",
        "b.yaml:7:5",
        "c.yaml:2:1",
    ]


@pytest.mark.parametrize(
    "field",
    [
        "env: {PASSWORD: [hunter2]}",
        'env: {PASSWORD: "${hunter2}"}',
        'env: {"hunter2 ": x, PASSWORD: "${hunter2"}',
        "files: [{path: a, content: [hunter2]}]",
        "files: [{path: a, mode: hunter2, content: x}]",
        "files: [{path: a, content: hunter2, secret: hunter2}]",
    ],
)
def test_no_error_shows_a_value_of_env_or_files(field: str) -> None:
    errors = errors_of(TASK + f"        {field}\n")
    assert errors
    assert not [
        error for error in errors if "hunter2" in error.replace("env.hunter2 ", "").replace("'hunter2 '", "")
    ]


def test_a_parameter_that_may_be_a_secret_is_not_shown() -> None:
    template = (
        "kind: Template\nname: t\nparameters: {password: {type: string, pattern: '^x'}}\njob: {}\n---\n"
    )
    error = the_error(template + "kind: Job\nname: web\ntemplate: t\nparameters: {password: hunter2}\n")
    assert "hunter2" not in str(error)
    assert error.path == "parameters.password"


def test_errors_name_the_document_they_are_of() -> None:
    error = the_error(TASK + "priority: 0\n")
    assert (error.kind, error.name) == ("Job", "web")


def test_a_hopeless_document_has_a_bounded_number_of_errors() -> None:
    errors = errors_of(TASK + "".join(f"nonsense{number}: 1\n" for number in range(1000)))
    assert len(errors) == 100


@pytest.mark.parametrize("word", ["no", "off", "yes", "on", "n", "y"])
def test_a_name_may_be_what_older_yaml_took_for_a_truth_value(word: str) -> None:
    assert the_job(TASK.replace("name: web", f"name: {word}"), word).name == word


def test_values_wanted_as_text_are_taken_as_written() -> None:
    job = the_job(
        TASK
        + "        env: {A: 012, B: 1.10, C: NO, D: true, E: 0x10, F: 1e3, G: ~, H: 10s}\n".replace(
            "G: ~, ", ""
        )
        + "labels: {version: 1.10, on: Yes, zip: 00501}\nrestart_token: 007\n"
    )
    env = job.groups[0].tasks[0].env
    assert env == {"A": "012", "B": "1.10", "C": "NO", "D": "true", "E": "0x10", "F": "1e3", "H": "10s"}
    assert job.labels == {"version": "1.10", "on": "Yes", "zip": "00501"}
    assert job.restart_token == "007"


def test_a_command_of_numbers_keeps_their_text() -> None:
    job = the_job(JOB + "groups: [{tasks: [{config: {command: [sleep, 010, 1.50]}}]}]\n")
    assert job.groups[0].tasks[0].config.command == ("sleep", "010", "1.50")


def test_an_empty_file_and_empty_documents_are_nothing() -> None:
    state = load({"a.yaml": "", "b.yaml": "# only words\n", "c.yaml": f"---\n---\n{TASK}---\n...\n"})
    assert not state.errors
    assert list(state.jobs) == ["web"]
    assert state.complete
