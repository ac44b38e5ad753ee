"""What is installed is what is here: files that are no Python ride along, and the version has one value."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import trueup
from cli.main import ROOMS
from tests.require import require

ROOT = Path(__file__).parents[2]


def test_the_wheel_has_every_file_of_the_packages(tmp_path: Path) -> None:
    """Schemas, the page, migrations and the examples are found after an installation, too."""
    require("git")
    tracked = subprocess.run(
        ["git", "ls-files", "-z", *ROOMS, "cli"], check=True, capture_output=True, text=True, cwd=ROOT
    ).stdout.split("\0")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)],
        check=True,
        capture_output=True,
        cwd=ROOT,
    )
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        packed = set(opened.namelist())
    assert {name for name in tracked if name and (ROOT / name).is_file()} <= packed
    assert {f"cli/examples/{path.name}" for path in (ROOT / "specs").glob("*.yaml")} <= packed


def test_the_version_has_one_value() -> None:
    """The package, the command and the API say the same."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == trueup.__version__
