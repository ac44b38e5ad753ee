"""Both sources are what the reconciler reads from."""

import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from reconciler.doors import SpecSource
from tests.unit.sources_io.repository import ManualClock, Repo, follow, job_text
from trueup.models.errors import SpecError
from trueup.sources.directory import DirectoryTree
from trueup.sources.git_tree import Blob, Folder, files_of
from trueup.sources.snapshot import FileKey, SpecFile
from trueup.sources.spec_source import directory_source


def test_both_are_spec_sources(repo: Repo, tmp_path: Path, clock: ManualClock) -> None:
    """The same specs are the same jobs, wherever they come from."""
    repo.commit({"specs/a.yaml": job_text("a")})
    from_folder: SpecSource = directory_source([repo.path / "specs"], clock)
    from_git: SpecSource = follow(repo.path, tmp_path / "data", clock, paths=("specs",))
    one, other = from_folder.read(None), from_git.read(None)
    assert one.jobs["a"].job == other.jobs["a"].job
    assert one.jobs["a"].place == other.jobs["a"].place
    assert (from_folder.status.kind, from_git.status.kind) == ("directory", "git")
    assert from_folder.status.last_success_at == from_git.status.last_success_at == clock.now()


names = st.sampled_from(["a", "b", ".h"])
places = st.lists(names, max_size=3).map(lambda parts: "/".join([*parts, "x.yaml"]))
targets = st.lists(
    st.sampled_from(["a", "b", ".h", "..", ".", "x.yaml", "l.yaml", "k"]), min_size=1, max_size=4
)
links = st.dictionaries(
    st.tuples(st.lists(names, max_size=2), st.sampled_from(["l.yaml", "k"])).map(
        lambda at: "/".join([*at[0], at[1]])
    ),
    targets.map("/".join),
    max_size=4,
)


@given(files=st.sets(places, min_size=1, max_size=4), links=links)
def test_folder_and_git_read_the_same_tree(files: set[str], links: dict[str, str]) -> None:
    """Whatever links there are: the same files by the same names with the same content, the same documents refused."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, target in links.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(target)
        for name in files:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"name: {name}\n")
        blobs: dict[str, bytes] = {}
        found = files_of(_as_git_has_it(root, blobs), ("",), blobs.__getitem__)
        snapshot = DirectoryTree([root], ManualClock()).snapshot(None)
        assert _view(found.files, found.errors) == _view(snapshot.files, snapshot.errors)


def _as_git_has_it(folder: Path, blobs: dict[str, bytes]) -> Folder:
    made: Folder = {}
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            made[path.name] = _as_git_has_it(path, blobs)
            continue
        # pathlib's own would tidy the target up
        content = os.readlink(path).encode() if path.is_symlink() else path.read_bytes()  # noqa: PTH115
        blob = Blob("120000" if path.is_symlink() else "100644", content.hex(), len(content))
        blobs[blob.id] = content
        made[path.name] = blob
    return made


def _view(
    files: Mapping[FileKey, SpecFile], errors: Iterable[SpecError]
) -> tuple[dict[str, bytes], dict[str, str]]:
    """Of what is refused only documents: for other names only a folder can be looked behind."""
    contents = {key.path: file.content() for key, file in files.items()}
    return contents, {error.file: error.message for error in errors if error.file.endswith(".yaml")}
