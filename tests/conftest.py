"""What every test has: an environment without the developer's own settings, markers that ask for what they need, and
expected output that `make golden` rewrites.
"""

import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TypeVar

import hypothesis
import pytest

from tests.require import EVERYTHING, PROMISES, promised, require

pytest_plugins = ["tests.docker_engine"]

AnyReport = TypeVar("AnyReport", pytest.TestReport, pytest.CollectReport)

_NEEDS = ("docker", "postgres", "browser")

# Two noisy cores: a deadline per example measures the neighbours. In CI the same examples come each time, so that a
# red run says something about the change under test.
# The explain phase traces every line of a failing example, which takes minutes.
_PHASES = tuple(phase for phase in hypothesis.Phase if phase is not hypothesis.Phase.explain)
hypothesis.settings.register_profile("trueup", deadline=None, phases=_PHASES)
hypothesis.settings.register_profile("ci", deadline=None, phases=_PHASES, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "trueup")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden", action="store_true", help="rewrite expected output instead of comparing with it"
    )
    parser.addoption("--seeds", type=int, default=200, help="how many seeds the simulator tries")
    parser.addoption("--seed", type=int, help="the one seed the simulator replays")


def pytest_configure() -> None:
    """Drops what would change behaviour: a developer's TRUEUP_SERVER must not be what a test talks to."""
    for name in list(os.environ):
        if name.startswith("TRUEUP_") and not name.startswith("TRUEUP_TEST_"):
            del os.environ[name]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `--golden`, only the tests that have expected output run."""
    if config.getoption("--golden"):
        items[:] = [item for item in items if "golden" in getattr(item, "fixturenames", ())]


def pytest_runtest_setup(item: pytest.Item) -> None:
    for what in _NEEDS:
        if item.get_closest_marker(what) is not None:
            require(what)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where everything is promised, a skip is a failure, whoever skipped."""
    return _no_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a module that skips itself."""
    return _no_skip((yield))


def _no_skip(report: AnyReport) -> AnyReport:
    if report.skipped and not hasattr(report, "wasxfail") and EVERYTHING in promised():
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome, report.longrepr = "failed", f"{PROMISES} promises everything, but: {why}"
    return report


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """`golden(path, text)`: *text* is what the file at *path* holds, or becomes it under `make golden`."""

    def compare(path: Path, text: str) -> None:
        if request.config.getoption("--golden"):
            path.write_text(text)
        else:
            assert text == path.read_text(), f"{path.name} differs; if the change is meant: make golden"

    return compare
