"""Absent things skip a test on a developer's machine, and fail it where they were promised."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SKIPS = """
import pytest
from tests.require import unavailable

def test_asks():
    unavailable("docker", "no engine here")

def test_skips():
    pytest.skip("not today")

@pytest.mark.xfail(reason="known")
def test_known():
    assert False
"""


@pytest.mark.parametrize(
    ("promised", "closing"),
    [
        ("", "2 skipped, 1 xfailed"),
        ("docker", "1 failed, 1 skipped, 1 xfailed"),
        ("all", "2 failed, 1 xfailed"),
    ],
)
def test_a_skip_is_a_failure_where_the_machine_has_everything(
    promised: str, closing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`TRUEUP_TEST_REQUIRE` names what must not be skipped; `all` leaves no skip at all."""
    (tmp_path / "test_skips.py").write_text(SKIPS)
    monkeypatch.setenv("TRUEUP_TEST_REQUIRE", promised)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider"),
            *("--rootdir", str(tmp_path), "-c", str(ROOT / "pyproject.toml"), str(tmp_path)),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert closing in done.stdout.splitlines()[-1], done.stdout + done.stderr
