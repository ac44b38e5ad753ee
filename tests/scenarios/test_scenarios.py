"""Stories an operator can read: a STATE.json as a person writes it, and what one pass plans.

Each file beside this one holds stories. `given` is a state; `wanted`, where it is there, are the documents of SPECS,
so that `jobs` of the state are what was last applied. `then` says of each job what the plan holds: the counts that
are not zero, placements as `name@node`, stops as `name: reason` (`stop_ids` tells those of one name apart), and when
to look again. What is left out of `then` is not looked at. `errors` are those of the documents (none if left out),
`held` is why the revision is held (null: it is not) and `removes` the jobs it would end; `confirmed` adds the
document that the hold of these same specs prints. The way is that of `trueup plan SPECS --offline --state`.
"""

from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.plan_inputs import CountedIds, PlanInput, state_file_input
from cli.spec_trees import load_specs
from cli.system import SystemClock
from reconciler.dry_run import dry_run
from reconciler.hold import confirming_document
from reconciler.report import PlanReport, report_document

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
    documents = story.get("wanted")
    report = _planned(begin, documents, tmp_path)
    if story.get("confirmed"):
        assert report.held is not None
        confirming = yaml.safe_load(confirming_document(report.held))
        report = _planned(begin, [*(documents or []), confirming], tmp_path)
    document = report_document(report)
    assert [f"{one['path']}: {one['message']}" for one in document["errors"]] == story.get("errors", [])
    held = document["held"] or {"reason": None, "removes": []}
    assert held["reason"] == story.get("held", held["reason"])
    assert held["removes"] == story.get("removes", held["removes"])
    found = {job["name"]: job for job in document["jobs"]}
    for name, wanted in story["then"].items():
        shown = _shown(found[name])
        assert {key: shown[key] for key in wanted} == wanted


def _planned(begin: PlanInput, documents: list[dict[str, Any]] | None, folder: Path) -> PlanReport:
    """The plan of the documents, or of the state's own jobs."""
    if documents is None:
        return dry_run(begin.state, None, begin.now, CountedIds())
    file = folder / "wanted.yaml"
    file.write_text(yaml.safe_dump_all(documents))
    return dry_run(begin.state, load_specs((file,)).desired, begin.now, CountedIds())


def _shown(job: dict[str, Any]) -> dict[str, Any]:
    counts = {
        group: {key: count for key, count in held.items() if count} for group, held in job["groups"].items()
    }
    return {
        "action": job["action"],
        "counts": next(iter(counts.values())) if len(counts) == 1 else counts,
        "place": [f"{one['name']}@{one['node']}" for one in job["placements"]],
        "stop": [{one["name"]: one["reason"]} for one in job["stops"]],
        "stop_ids": [one["id"] for one in job["stops"]],
        "unplaced": [one["reasons"] for one in job["unplaced"]],
        "next_look": job["next_look"],
    }
