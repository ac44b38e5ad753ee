"""What the documentation says can be followed."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from cli.main import cli
from trueup.models.wire import holdings_digest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every link to a file of the repository is to one that is there."""
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_targets_of_make_are_explained() -> None:
    """CONTRIBUTING names each target a person calls, with the command it stands for."""
    makefile = (ROOT / "Makefile").read_text()
    [phony] = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert [name for name in phony.split() if f"`{name}`" not in text and f"make {name}" not in text] == []


def test_the_digest_of_nothing_is_the_one_the_docs_name() -> None:
    """Agents written by others compute it from the page."""
    assert holdings_digest(()) in (ROOT / "docs" / "reference" / "agents.md").read_text()


def test_make_says_what_is_missing(tmp_path: Path) -> None:
    """A Python that is too old, or has no pip, is answered with what to do."""
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = subprocess.run(
        ["make", f"PYTHON={old}", "--always-make", ".venv/.ok"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode != 0
    assert "needs Python 3.11 or newer" in done.stderr


def _commands_of(page: Path) -> list[list[str]]:
    """The `trueup …` lines of a page's shell blocks, as words; without comments, pipes and redirections."""
    found: list[list[str]] = []
    for block in re.findall(r"^```(?:sh|console)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = re.split(r"\s[|>#]|\s&&", line.strip().removeprefix("$ "))[0]
            if re.match(r"trueup\s+[a-z]", words) and not words.startswith("trueup is"):
                found.append(shlex.split(words))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_the_docs_exist(page: Path) -> None:
    """Each command a page shows is one of the command line, and so is each of its options."""
    root = click.Context(cli, info_name="trueup")
    unknown = []
    for words in _commands_of(page):
        named = cli.get_command(root, words[1])
        options = {"--help"} | ({name for param in named.params for name in param.opts} if named else set())
        unknown += [word for word in words[2:] if word.startswith("--") and word.split("=")[0] not in options]
        unknown += [words[1]] if named is None else []
    assert unknown == []


def test_the_tutorial_shows_commands() -> None:
    """Else the test of commands finds nothing and proves nothing."""
    assert len(_commands_of(ROOT / "docs" / "tutorial" / "first-five-minutes.md")) > 8


def test_the_pre_commit_hook(tmp_path: Path) -> None:
    """As pre-commit runs it: the entry with its arguments, in the repository that is committed to."""
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert f"id: {hook['id']}" in (ROOT / "docs" / "howto" / "plan-in-ci.md").read_text()
    specs = tmp_path / hook["args"][0]
    specs.mkdir()
    (specs / "web.yaml").write_text("kind: Job\nname: web\ngroups: [{tasks: [{config: {command: [a]}}]}]\n")
    assert re.search(hook["files"], "specs/web.yaml")
    program, *arguments = shlex.split(hook["entry"])
    command = [str(Path(sys.executable).with_name(program)), *arguments, *map(str, hook["args"])]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0
    (specs / "web.yaml").write_text("kind: Job\nname: web\ncuont: 3\n")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "web.yaml:3:1: cuont: unknown key" in done.stderr + done.stdout


@pytest.mark.parametrize("name", ["plan-in-ci.md", "edit-specs.md", "get-told.md"])
def test_what_is_to_be_copied_is_well_formed(name: str) -> None:
    """YAML and JSON of the pages about CI, editors and webhooks."""
    page = ROOT / "docs" / "howto" / name
    for language, block in re.findall(
        r"^```(yaml|json)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL
    ):
        assert yaml.safe_load(block) if language == "yaml" else json.loads(block)
