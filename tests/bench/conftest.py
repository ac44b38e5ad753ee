"""What all benchmarks begin with."""

import logging

import pytest
import structlog

from cli.system import collect_seldom


@pytest.fixture(autouse=True)
def _as_a_server() -> None:
    """The collector as the server has it. Loops that run in this process log what goes wrong only: a list of 1,000
    jobs would bury the figures.
    """
    collect_seldom()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
