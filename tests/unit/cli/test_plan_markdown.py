"""A plan as a comment of a pull request: safe whatever specs hold, and never too long."""

import html
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from cli.clean import clean
from cli.plan_markdown import MAX_BYTES, code, plan_markdown
from reconciler.report import FieldChange, GroupCounts, JobPlan, PlannedPlacement, PlannedStop, PlanReport
from trueup.models.errors import SpecError
from trueup.models.evaluation import UnplacedGroup
from trueup.models.ids import RevisionId
from trueup.models.revision import Held

PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
SAFE_BLOCK = re.compile(
    r"<details><summary><code>[A-Za-z0-9 &#;-]*</code>[a-z0-9 :,]*(?:<b>without room</b>)?</summary>"
)
LIMIT = 65_536
"""GitHub's."""

HOSTILE = (
    "`", "```", "`````````", "~~~", "\n", "\r", "\r\n\r\n", "\x00", "\x1b[2J", "\x85", "\u2028", "\u202e", "\ud800",
    "</details>", "</summary>", "</code>", "<!--", "<script>", "<img src=x onerror=a>", "|", "||\n|-|", "@everyone",
    "@org/team", "#1", "GH-1", "!1", "www.example.com", "https://example.com", "[a](http://b)", "![a](b)", "[x]: http://b",
    "a@b.example", "$x$", "$$", "*", "**", "__", "# ", "> ", "- ", "1. ", "    ", "\t", "&lt;", "&#64;", "\\", ":tada:",
    "...", "---", "===", "@@ a @@", "ü", "日本", "\U0001f600",
)  # fmt: skip
TEXT = st.lists(st.one_of(st.sampled_from(HOSTILE), st.text(max_size=8)), max_size=6).map("".join)
VALUE = st.one_of(
    st.none(), TEXT, st.integers(), st.booleans(), st.lists(TEXT, max_size=3), st.dictionaries(TEXT, TEXT)
)


def jobs() -> st.SearchStrategy[JobPlan]:
    return st.builds(
        JobPlan,
        name=TEXT,
        action=st.sampled_from(["create", "update", "delete", "none"]),
        groups=st.dictionaries(
            TEXT, st.builds(GroupCounts, place=st.integers(0, 3), destructive_total=st.integers(0, 3))
        ),
        diff=st.lists(st.builds(FieldChange, path=TEXT, before=VALUE, after=VALUE), max_size=3).map(tuple),
        placements=st.lists(
            st.builds(PlannedPlacement, name=TEXT, node=TEXT, score=st.floats(0, 1)), max_size=3
        ).map(tuple),
        stops=st.lists(
            st.builds(
                PlannedStop, id=TEXT, name=TEXT, node=TEXT, reason=st.one_of(TEXT, st.just("updating"))
            ),
            max_size=3,
        ).map(tuple),
        unplaced=st.lists(
            st.builds(
                UnplacedGroup,
                group=TEXT,
                count=st.integers(1, 9),
                reasons=st.dictionaries(TEXT, st.integers(1, 9)),
            ),
            max_size=2,
        ).map(tuple),
        next_look=st.sampled_from([None, datetime(2026, 6, 1, tzinfo=UTC)]),
    )


def a_report(*jobs: JobPlan, held: Held | None = None, **fields: Any) -> PlanReport:
    return PlanReport(
        **{"revision": "r2", "base_revision": "r1", "index": 1, "held": held, "jobs": jobs, **fields}
    )


def tokens(text: str) -> Iterator[Token]:
    for token in PARSER.parse(text):
        yield token
        yield from token.children or ()


def check_safe(text: str) -> None:
    """Parsed by CommonMark, all but our own words is code, and every section that opens closes at the top level."""
    assert not set(text) & set("\x00\r\x1b\x85\u2028\u202e\ud800")
    text.encode()
    depth = 0
    for token in tokens(text):
        assert token.type in {
            "heading_open", "heading_close", "paragraph_open", "paragraph_close", "inline", "text", "softbreak",
            "strong_open", "strong_close", "code_inline", "fence", "html_block",
        }, token  # fmt: skip
        if token.type == "html_block":
            block = token.content.rstrip("\n")
            assert block == "</details>" or SAFE_BLOCK.fullmatch(block), block
            depth += -1 if block == "</details>" else 1
            assert depth in {0, 1}
        if token.type == "fence":
            assert token.info in {"", "diff"}
        if token.type == "text":
            assert not re.search(r"[@#$<>\[\]`|]|www|://", token.content), token.content
    assert depth == 0


@settings(max_examples=40, deadline=None)
@given(
    st.lists(jobs(), max_size=4),
    st.lists(TEXT, max_size=3),
    st.lists(st.builds(SpecError, file=TEXT, message=TEXT, hint=TEXT), max_size=3),
    st.none()
    | st.builds(
        Held, revision=TEXT.map(RevisionId), reason=TEXT, removes=st.lists(TEXT).map(tuple), confirm=TEXT
    ),
    TEXT,
)
@example([JobPlan(name="x`\n</code></details>\n\n# @everyone", action="create")], [], [], None, "`")
def test_nothing_of_specs_is_markup(
    jobs: list[JobPlan], warnings: list[str], errors: list[SpecError], held: Held | None, revision: str
) -> None:
    """Whatever names, values, messages and revisions hold, it is code, and nothing in it calls or links anyone."""
    text = plan_markdown(
        a_report(*jobs, held=held, revision=revision, base_revision=revision), errors, warnings
    )
    check_safe(text)
    for job in jobs:
        if job.is_changed:
            assert clean(job.name[:80]) in html.unescape(text)


def test_a_section_says_all_of_a_job() -> None:
    """Fields with the lines that differ, moves with reasons, what found no room; in the title, the sums."""
    job = JobPlan(
        name="web",
        action="update",
        groups={"app": GroupCounts(place=2, stop=1, destructive=1, destructive_total=3)},
        diff=(
            FieldChange(path="groups[app].count", before=1, after=3),
            FieldChange(path="labels", before=None, after={"team": "shop"}),
            FieldChange(
                path="groups[app].tasks[server].files",
                before=[{"path": "a.conf", "content": "one\ntwo\nthree\nfour\nfive\n"}],
                after=[{"path": "a.conf", "content": "one\ntwo\nthree\nfour\nFIVE\n"}],
            ),
        ),
        placements=(
            PlannedPlacement(name="web.app[0]", node="node-2", score=0.5),
            PlannedPlacement(name="web.app[1]", node="node-1", score=0.25),
        ),
        stops=(
            PlannedStop(id="1", name="web.app[0]", node="node-1", reason="updating"),
            PlannedStop(id="2", name="web.app[3]", node="node-3", reason="not needed"),
        ),
        unplaced=(UnplacedGroup(group="app", count=1, reasons={"insufficient memory": 2}),),
    )
    text = plan_markdown(a_report(job), [], [])
    check_safe(text)
    section = text[text.index("<details>") : text.index("</details>")]
    assert section == (
        "<details><summary><code>web</code> changes: 2 to place, 3 to replace, 1 to stop, "
        "1 <b>without room</b></summary>\n"
        "\n```diff\n@@ groups[app].count @@\n-1\n+3\n```\n"
        "\n```diff\n@@ labels @@\n+team: shop\n```\n"
        "\n```diff\n@@ groups[app].tasks[server].files @@\n     four\n-    five\n+    FIVE\n```\n"
        "\n```diff\n-/+ web.app[0] from node-1 to node-2\n-   web.app[3] on node-3: not needed\n"
        "+   web.app[1] on node-1 (score 0.25)\n-/+ 2 more of app after these, as update says\n"
        "!   1 of app found no room: insufficient memory (2 nodes)\n```\n\n"
    )


def test_what_needs_a_look_comes_first() -> None:
    """Removals, then what found no room, then the rest as it is planned."""
    text = plan_markdown(
        a_report(
            JobPlan(name="a", action="create"),
            JobPlan(name="b", action="create", unplaced=(UnplacedGroup(group="app", count=1),)),
            JobPlan(name="c", action="delete"),
            JobPlan(name="d", action="none"),
        ),
        [],
        [],
    )
    assert re.findall(r"<code>(.)</code>", text) == ["c", "b", "a"]


@pytest.mark.parametrize("filler", ["x", "ü", "\U0001f600", "`", "<"])
def test_a_comment_is_never_refused_for_its_length(filler: str) -> None:
    """What does not fit is counted, and the command that shows it is named; one job does not push out the others."""
    big = JobPlan(
        name="big",
        action="create",
        placements=tuple(
            PlannedPlacement(name=f"big.app[{n}]{filler * 200}", node="node", score=0.5) for n in range(5000)
        ),
    )
    others = [
        JobPlan(
            name=f"job-{number}{filler * 200}",
            action="update",
            diff=(FieldChange(path="labels", before=None, after={str(n): filler * 99 for n in range(100)}),),
        )
        for number in range(300)
    ]
    held = Held(
        revision=RevisionId("r2"), reason=filler * 500, removes=(filler * 500,) * 500, confirm="c0ffee"
    )
    text = plan_markdown(
        a_report(big, *others, held=held), [SpecError(message=filler * 500)] * 100, [filler * 500] * 100
    )
    assert len(text) <= len(text.encode()) <= MAX_BYTES < LIMIT
    assert text.count("<details>") > 2
    assert re.search(r"\d+ more lines are left out here", text)
    assert re.search(r"\*\*\d+ more jobs are left out here; `trueup plan` shows them all\.\*\*", text)
    assert "and 80 more" in text
    assert "confirm: c0ffee" in text
    check_safe(text)


def test_code_spans_with_backticks_at_the_ends() -> None:
    """A space keeps them apart from the fence."""
    assert code("`a`") == "`` `a` ``"
    assert code("plain") == "`plain`"


def test_what_is_held_says_how_to_confirm() -> None:
    """The document to paste is in it."""
    text = plan_markdown(
        a_report(held=Held(revision=RevisionId("r2"), reason="too much", confirm="c0ffee")), [], []
    )
    assert "**This revision would be held.**" in text
    assert "confirm: c0ffee" in text
