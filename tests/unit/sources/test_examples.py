"""The examples in `specs/`: sound, small enough for any machine, healthy soon, and what `trueup init` writes."""

import shutil
from importlib.resources import files
from pathlib import Path
from typing import Final

import pytest

from tests.unit.sources.trees import load
from trueup.models.desired import DesiredState
from trueup.models.job import Job
from trueup.models.units import Duration

FOLDER: Final = Path(__file__).parents[3] / "specs"


@pytest.fixture(scope="module")
def examples() -> DesiredState:
    """All that `specs/` says."""
    texts = {
        path.relative_to(FOLDER).as_posix(): path.read_bytes() for path in FOLDER.rglob("*") if path.is_file()
    }
    return load(texts)


def jobs(examples: DesiredState) -> list[Job]:
    return [one.job for one in examples.jobs.values()]


def test_they_are_sound(examples: DesiredState) -> None:
    assert examples.errors == ()
    assert examples.warnings == ()


def test_they_show_a_template_a_web_service_of_three_a_schedule_and_a_system_job(
    examples: DesiredState,
) -> None:
    assert list(examples.templates) == ["web"]
    hello = examples.jobs["hello"]
    assert hello.template == "web"
    assert hello.job.groups[0].count == 3
    assert {job.name: job.type for job in jobs(examples)} == {
        "hello": "service",
        "disk-report": "batch",
        "load-report": "system",
    }
    assert examples.jobs["disk-report"].job.schedule is not None


def test_all_of_it_fits_a_machine_of_one_core_and_one_gibibyte(examples: DesiredState) -> None:
    needs = [
        (group.count * task.resources.cpu_millicores, group.count * task.resources.memory_bytes)
        for job in jobs(examples)
        for group in job.groups
        for task in group.tasks
    ]
    assert sum(cpu for cpu, _ in needs) < 900
    assert sum(memory for _, memory in needs) < 512 * 1024**2


def test_they_are_healthy_soon(examples: DesiredState) -> None:
    for job in jobs(examples):
        if job.type in {"service", "system"}:
            assert job.update.min_healthy_time == Duration(seconds=1)
        for check in (check for group in job.groups for task in group.tasks for check in task.checks):
            assert check.interval == Duration(seconds=1)


def test_they_need_free_ports_and_commands_every_debian_has(examples: DesiredState) -> None:
    for job in jobs(examples):
        for group in job.groups:
            assert [port.port for port in group.ports if port.port is not None] == []
            for task in group.tasks:
                assert task.driver == "process"
                assert task.config.command[0] in {"/bin/sh", "python3"}
                assert shutil.which(task.config.command[0])


def test_trueup_init_writes_these(examples: DesiredState) -> None:
    packaged = files("cli").joinpath("examples")
    assert packaged.joinpath("hello.yaml").read_bytes() == (FOLDER / "hello.yaml").read_bytes()
    assert (
        packaged.joinpath("templates", "web.yaml").read_bytes()
        == (FOLDER / "templates/web.yaml").read_bytes()
    )
