"""A store that was put back from a copy, or lost: what runs is taken over, and nothing of it is stopped."""

import shutil

import pytest

from tests.e2e.cluster import Up
from tests.e2e.test_edits import job

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("what", ["older copy", "lost"])
def test_nothing_is_stopped_by_an_older_or_lost_store(up: Up, what: str) -> None:
    """Two ran when the copy was made, four run now; the specs say four."""
    up.specs.write("web.yaml", job(count=2))
    up.start()
    up.api.until_running("web", 2)
    server = up.folder / ".trueup" / "server"
    assert up.running.terminate() == 0
    shutil.copytree(server, up.folder / "copy")
    up.start()
    up.specs.write("web.yaml", job(count=4))
    before = up.api.until_running("web", 4)
    up.running.kill()
    shutil.rmtree(server)
    if what == "older copy":
        shutil.copytree(up.folder / "copy", server)
    up.start()
    after = up.api.until_running("web", 4)
    assert after == before
    stopped = [one for one in up.api.allocations("web", wanted=False) if one["desired_status"] != "run"]
    assert stopped == []
