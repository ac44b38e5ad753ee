"""The check of an image beside those of its task: all of them have to pass."""

import pytest

from agent.doors import ImageHealth
from agent.image_health import all_checks
from agent.instructions import CheckView
from agent.record import TaskRecord


@pytest.mark.parametrize(
    ("image", "of_the_task", "passing"),
    [
        ("", None, None),
        ("", True, True),
        ("starting", None, None),
        ("starting", True, None),
        ("starting", False, False),
        ("healthy", None, True),
        ("healthy", True, True),
        ("healthy", False, False),
        ("unhealthy", None, False),
        ("unhealthy", True, False),
    ],
)
def test_all_have_to_pass(image: ImageHealth, of_the_task: bool | None, passing: bool | None) -> None:
    record = TaskRecord(phase="running", attempt=1, image_health=image)
    view = None if of_the_task is None else CheckView(attempt=1, passing=of_the_task)

    seen = all_checks(record, view)

    assert (None if seen is None else seen.passing) is passing


def test_a_check_of_an_earlier_attempt_says_nothing() -> None:
    record = TaskRecord(phase="running", attempt=2, image_health="starting")

    assert all_checks(record, CheckView(attempt=1, passing=True)) == CheckView(attempt=2)
    assert all_checks(TaskRecord(phase="running", attempt=2), CheckView(attempt=1, passing=True)) is None
