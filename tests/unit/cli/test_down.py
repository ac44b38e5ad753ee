"""`trueup down`: which folder it ends, and which it deletes."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Run = Callable[..., Result]


def _an_agent_ran_in(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "agent.db").touch()


def _purge(run: Run, data: Path) -> str:
    done = run("down", "--purge", "--data", str(data))
    assert done.exit_code == 0, done.output
    return str(done.stdout)


def test_purge_of_an_agent_leaves_what_lies_beside_its_folder(run_alone: Run, tmp_path: Path) -> None:
    """A server's data folder is often the neighbour of an agent's, as under /var/lib/trueup."""
    _an_agent_ran_in(tmp_path / "agent")
    (tmp_path / "server").mkdir()
    assert f"{tmp_path / 'agent'} deleted" in _purge(run_alone, tmp_path / "agent")
    assert (tmp_path / "server").is_dir()
    assert not (tmp_path / "agent").exists()


def test_purge_after_up_deletes_store_and_agent(run_alone: Run, tmp_path: Path) -> None:
    """`trueup up` keeps both in one folder, and that is what --data names."""
    _an_agent_ran_in(tmp_path / ".trueup" / "agent")
    (tmp_path / ".trueup" / "server").mkdir()
    assert f"{tmp_path / '.trueup'} deleted" in _purge(run_alone, tmp_path / ".trueup")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_an_agent_is_refused(run_alone: Run, tmp_path: Path) -> None:
    """Nothing is deleted where no agent ever ran."""
    done = run_alone("down", "--purge", "--data", str(tmp_path))
    assert done.exit_code == 1
    assert tmp_path.is_dir()


def test_without_data_the_folder_is_that_of_up(
    run_alone: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --data it is ./.trueup, whole."""
    monkeypatch.chdir(tmp_path)
    _an_agent_ran_in(tmp_path / ".trueup" / "agent")
    done = run_alone("down", "--purge")
    assert done.exit_code == 0, done.output
    assert not (tmp_path / ".trueup").exists()
