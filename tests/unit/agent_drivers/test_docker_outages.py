"""When the engine was away, and what ended meanwhile."""

from datetime import UTC, datetime, timedelta

from agent.drivers.docker_outages import Outages


class Engine:
    """When it last answered; None: never."""

    answered_at: datetime | None = None


def test_what_ended_between_the_last_answer_and_the_next_ended_while_the_engine_was_away() -> None:
    engine = Engine()
    outages = Outages(lambda: engine.answered_at)
    last, now = datetime.now(UTC) - timedelta(minutes=5), datetime.now(UTC)
    engine.answered_at = last
    assert not outages.had(now)

    outages.begin()
    outages.begin()
    engine.answered_at = now
    assert outages.had(last + timedelta(seconds=1))
    assert outages.had(now), "it may be heard by others before this is told that it is"
    assert not outages.had(last)

    outages.end()
    outages.end()
    assert outages.had(last + timedelta(seconds=1))
    assert not outages.had(datetime.now(UTC) + timedelta(seconds=1))


def test_what_ended_before_an_agent_that_came_to_an_absent_engine_ended_with_that() -> None:
    """Nobody can say when it went away."""
    outages = Outages(lambda: None)

    outages.begin()
    outages.end()

    assert outages.had(datetime.now(UTC) - timedelta(days=1))
