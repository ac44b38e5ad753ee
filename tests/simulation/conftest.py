"""Which seeds are tried."""

import pytest


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" not in metafunc.fixturenames:
        return
    one = metafunc.config.getoption("--seed")
    seeds = range(metafunc.config.getoption("--seeds")) if one is None else [one]
    metafunc.parametrize("seed", seeds)
