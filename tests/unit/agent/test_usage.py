"""What is in use of the real machine, and who waits for it."""

import threading
import time
from pathlib import Path

import psutil
import pytest

from agent.usage import STALE_SECONDS, MachineMeter, UseSampler
from agent.workers import InlineWorkers, ThreadWorkers
from tests.unit.agent.node import until
from tests.unit.agent.world import VirtualClock
from trueup.models.node import NodeUse
from trueup.models.units import Bytes


def test_this_machine(tmp_path: Path) -> None:
    """A processor that is kept busy is in use, memory is, and the disk is that of the folder."""
    measure = MachineMeter(tmp_path)
    begun = time.process_time()
    while time.process_time() - begun < 0.3:
        pass
    found = measure()
    assert 0 < found.cpu_millicores <= (psutil.cpu_count() or 1) * 1000
    assert 0 < found.memory_bytes < psutil.virtual_memory().total
    assert 0 < found.disk_free_bytes < found.disk_bytes == psutil.disk_usage(str(tmp_path)).total


def test_a_disk_that_cannot_be_asked(tmp_path: Path) -> None:
    """The rest is told all the same."""
    found = MachineMeter(tmp_path / "gone")()
    assert (found.disk_bytes, found.disk_free_bytes) == (0, 0)
    assert found.memory_bytes > 0


def test_nobody_waits_for_a_measurement() -> None:
    """While one hangs no second one is begun; what it comes to is told later."""
    begun, goes_on = threading.Event(), threading.Event()
    measured = []

    def measure() -> NodeUse:
        measured.append(True)
        begun.set()
        assert goes_on.wait(30)
        return NodeUse(memory_bytes=Bytes(7))

    clock, workers = VirtualClock(), ThreadWorkers("measure", 4)
    sampler = UseSampler(measure, workers, clock)
    assert sampler.latest() is None
    assert begun.wait(30)
    clock.seconds += 100
    assert sampler.latest() is None
    goes_on.set()
    until(lambda: sampler.latest() == NodeUse(memory_bytes=Bytes(7)))
    assert len(measured) == 1
    workers.close()


@pytest.mark.parametrize("fault", [False, True])
def test_what_is_old_is_not_told(*, fault: bool) -> None:
    """It is measured every few seconds; a number that could not be renewed for long is no use of now."""
    fails = False

    def measure() -> NodeUse:
        if fails:
            raise OSError("no such processor")
        return NodeUse(memory_bytes=Bytes(7))

    clock = VirtualClock()
    sampler = UseSampler(measure, InlineWorkers(), clock)
    assert sampler.latest() is not None
    fails = fault
    clock.seconds += STALE_SECONDS
    assert (sampler.latest() is None) == fault
