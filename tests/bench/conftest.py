"""What all benchmarks begin with."""

import logging

import pytest
import structlog


@pytest.fixture(autouse=True)
def _figures_alone() -> None:
    """The loops that run in this process log what goes wrong only: a list of 1,000 jobs would bury the figures."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
