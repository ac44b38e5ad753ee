"""Stories an operator can read: a STATE.json as a person writes it, and what one pass plans.

Each file beside this one holds stories. `given` is a state; `then` says of each job what the plan holds: the counts
that are not zero, placements as `name@node`, stops as `name: reason`, and when to look again. What is left out of
`then` is not looked at. The way is that of `trueup plan --offline --state`.
"""

from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.plan_inputs import CountedIds, state_file_input
from cli.system import SystemClock
from reconciler.dry_run import dry_run
from reconciler.report import report_document

FOLDER = Path(__file__).parent
STORIES = [
    pytest.param(story, id=f"{file.stem}: {story['story']}")
    for file in sorted(FOLDER.glob("*.yaml"))
    for story in yaml.safe_load(file.read_text())
]


@pytest.mark.parametrize("story", STORIES)
def test_story(story: dict[str, Any], tmp_path: Path) -> None:
    state = tmp_path / "state.yaml"
    state.write_text(yaml.safe_dump(story["given"]))
    begin = state_file_input(state, None, SystemClock().now())
    document = report_document(dry_run(begin.state, None, begin.now, CountedIds()))
    found = {job["name"]: job for job in document["jobs"]}
    for name, wanted in story["then"].items():
        shown = _shown(found[name])
        assert {key: shown[key] for key in wanted} == wanted


def _shown(job: dict[str, Any]) -> dict[str, Any]:
    counts = {
        group: {key: count for key, count in held.items() if count} for group, held in job["groups"].items()
    }
    return {
        "counts": next(iter(counts.values())) if len(counts) == 1 else counts,
        "place": [f"{one['name']}@{one['node']}" for one in job["placements"]],
        "stop": [{one["name"]: one["reason"]} for one in job["stops"]],
        "unplaced": [one["reasons"] for one in job["unplaced"]],
        "next_look": job["next_look"],
    }
