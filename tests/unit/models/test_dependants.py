"""Who depends on a job is known by name, as the current versions say it, whatever earlier ones said."""

from hypothesis import given
from hypothesis import strategies as st

from tests.builders import a_job, a_record, a_version
from trueup.models.state import ClusterState

NAMES = ["a", "b", "c"]


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.lists(st.sampled_from(NAMES), unique=True)), max_size=8))
def test_dependants_are_those_of_current_versions(history: list[tuple[str, list[str]]]) -> None:
    state = ClusterState()
    for number, (name, depends_on) in enumerate(history, 1):
        job = a_job(name, depends_on=tuple(depends_on))
        state.put_version(a_version(job, version=number))
        state.jobs[name] = a_record(job, version=number)
    newest = dict(history)
    for state_now in (state, state.copy()):
        for name in NAMES:
            assert state_now.dependants_of(name) == sorted(
                other for other, depends_on in newest.items() if name in depends_on
            )
