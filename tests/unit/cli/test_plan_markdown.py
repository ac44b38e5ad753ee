"""A plan as a comment of a pull request: safe whatever specs hold, and never too long."""

from cli.plan_markdown import MAX_CHARACTERS, code, plan_markdown
from reconciler.report import JobPlan, PlannedPlacement, PlanReport
from trueup.models.errors import SpecError
from trueup.models.ids import RevisionId
from trueup.models.revision import Held


def a_report(*jobs: JobPlan, held: Held | None = None) -> PlanReport:
    return PlanReport(revision="r2", base_revision="r1", index=1, held=held, jobs=jobs)


def test_nothing_of_specs_is_markup() -> None:
    """Names, messages and values stand in code, whose fence is longer than any run of backticks in them."""
    hostile = "x` <img src=x> @everyone | [a](http://b) ```` \x1b[2J"
    job = JobPlan(
        name=hostile, action="create", placements=(PlannedPlacement(name=hostile, node="n", score=0.5),)
    )
    text = plan_markdown(a_report(job), [SpecError(file="a.yaml", message=hostile)], [hostile])
    assert "\x1b" not in text
    fences = [line for line in text.splitlines() if set(line) == {"`"}]
    assert len(fences) % 2 == 0
    assert all(len(fence) > 4 for fence in fences)
    rows = [line for line in text.splitlines() if line.startswith("| ") and "img" in line]
    assert all(row.split(" ")[1].startswith("`````") for row in rows)
    assert "\\|" in rows[0]


def test_code_spans_with_backticks_at_the_ends() -> None:
    """A space keeps them apart from the fence."""
    assert code("`a`") == "`` `a` ``"
    assert code("plain") == "`plain`"


def test_a_comment_is_never_refused_for_its_length() -> None:
    """What does not fit is counted, and the command that shows it is named."""
    jobs = [
        JobPlan(
            name=f"job-{number}",
            action="create",
            placements=tuple(
                PlannedPlacement(name=f"job-{number}.app[{n}]", node="node", score=0.5) for n in range(50)
            ),
        )
        for number in range(300)
    ]
    text = plan_markdown(a_report(*jobs), [SpecError(message="x" * 500)] * 100, [])
    assert len(text) < MAX_CHARACTERS + 1000
    assert "and 200 more jobs" in text
    assert "more lines are left out; `trueup plan` shows them all." in text
    assert "and 80 more" in text


def test_what_is_held_says_how_to_confirm() -> None:
    """The document to paste is in it."""
    text = plan_markdown(
        a_report(held=Held(revision=RevisionId("r2"), reason="too much", confirm="c0ffee")), [], []
    )
    assert "**This revision would be held.**" in text
    assert "confirm: c0ffee" in text
