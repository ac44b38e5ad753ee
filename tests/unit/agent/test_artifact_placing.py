"""Artifacts in a task's folder: where they land, whose they are, and what no archive can do there."""

import os
import stat
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.artifacts.cache import ArtifactCache
from agent.artifacts.placing import PlacedArtifacts
from agent.artifacts.sources import ArtifactSources
from agent.artifacts.unpack import UnpackLimits
from agent.doors import Account, ArtifactError, ArtifactsUnwanted, TaskFolders, WantedArtifact
from agent.folders import DiskFolders
from tests.unit.agent.archives import a_file, a_header, a_tar, a_zip
from tests.unit.agent.artifact_host import ANY_HOST, ArtifactHost, a_wanted, an_artifact_host
from trueup.models.artifacts import ArtifactPolicy
from trueup.models.ids import AllocationId

A1 = AllocationId("a1")
ME = Account(name="me", home="/", uid=os.geteuid(), gid=os.getegid())


class Place:
    """A node's artifacts and the folder of one task."""

    def __init__(self, data: Path, host: ArtifactHost) -> None:
        self.data, self.host = data, host
        self.disk = DiskFolders(data / "allocations")
        self.folders: TaskFolders = self.disk.paths(A1, "server")
        self.task = self.folders.task
        self.told: list[str] = []
        self.restart()

    def restart(self, policy: ArtifactPolicy = ANY_HOST, limits: UnpackLimits | None = None) -> None:
        sources = ArtifactSources(policy)
        self.artifacts = PlacedArtifacts(sources, ArtifactCache(self.data / "artifacts", sources), limits)

    def serve(self, name: str, content: bytes, destination: str = "local/") -> WantedArtifact:
        self.host.files[f"/{name}"] = content
        return a_wanted(f"{self.host.url}/{name}", content, destination=destination)

    def put(self, *wanted: WantedArtifact, owner: Account | None = ME, task: str = "server") -> None:
        self.disk.prepare(A1, task, owner, [])
        self.artifacts.provide(
            wanted,
            self.disk.paths(A1, task),
            owner,
            downloads=self.told.append,
            is_unwanted=lambda: False,
        )

    def refused(self, *wanted: WantedArtifact) -> str:
        with pytest.raises(ArtifactError) as caught:
            self.put(*wanted)
        return str(caught.value)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with an_artifact_host() as host:
        yield Place(tmp_path / "data", host)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize(
    ("destination", "lands"),
    [
        ("local/", "local/tool"),
        ("local/deep/er/", "local/deep/er/tool"),
        ("bin/server", "bin/server"),
        ("./", "tool"),
        (".", "tool"),
        ("local", "local"),
    ],
)
def test_a_single_file_lands_as_users_of_nomad_expect(place: Place, destination: str, lands: str) -> None:
    place.put(place.serve("tool", b"#!/bin/sh\n", destination))
    assert (place.task / lands).read_bytes() == b"#!/bin/sh\n"
    assert mode_of(place.task / lands) == 0o755


@pytest.mark.parametrize("destination", ["/etc/x", "../x", "a/../../x", "a/../x"])
def test_a_destination_outside_is_refused(place: Place, destination: str) -> None:
    assert "beneath the task's folder" in place.refused(place.serve("tool", b"x", destination))


def test_a_file_without_a_name_needs_one(place: Place) -> None:
    assert "has no name" in place.refused(place.serve("", b"x"))
    place.put(place.serve("", b"x", "tool"))
    assert (place.task / "tool").read_bytes() == b"x"


def test_archives_are_unpacked(place: Place) -> None:
    packed = a_tar(
        [
            a_file("app/run", b"run", 0o755),
            (a_header("app/latest", tarfile.SYMTYPE, linkname="run"), b""),
            (a_header("app/same", tarfile.LNKTYPE, linkname="app/run"), b""),
            (a_header("empty", tarfile.DIRTYPE), b""),
        ]
    )
    place.put(
        place.serve("a.tar.gz", packed),
        place.serve("b.zip", a_zip({"conf/x": b"x", "app/more": b"more"}), "local"),
    )
    local = place.task / "local"
    assert (local / "app/run").read_bytes() == b"run"
    assert mode_of(local / "app/run") == 0o755
    assert os.readlink(local / "app/latest") == "run"  # noqa: PTH115 - as it is written
    assert (local / "app/same").stat().st_ino == (local / "app/run").stat().st_ino
    assert sorted(path.name for path in (local / "app").iterdir()) == ["latest", "more", "run", "same"]
    assert (local / "empty").is_dir()
    assert (local / "conf/x").read_bytes() == b"x"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_all_of_it_belongs_to_the_tasks_user(place: Place) -> None:
    nobody = Account(name="nobody", home="/", uid=65534, gid=65534)
    packed = a_tar([a_file("d/run"), (a_header("d/link", tarfile.SYMTYPE, linkname="run", uid=1), b"")])
    place.put(place.serve("a.tgz", packed), place.serve("tool", b"x", "bin/"), owner=nobody)
    found = list(place.task.rglob("*"))
    assert len(found) == 6
    assert {(path.lstat().st_uid, path.lstat().st_gid) for path in found} == {(65534, 65534)}


def test_where_the_user_is_known_only_in_an_image_all_may_run_it(place: Place) -> None:
    place.put(
        place.serve("a.tgz", a_tar([a_file("run", mode=0o700), a_file("conf", mode=0o600)])), owner=None
    )
    assert mode_of(place.task / "local/run") == 0o755
    assert mode_of(place.task / "local/conf") == 0o644
    assert mode_of(place.task / "local") == 0o777


@pytest.mark.parametrize(
    "members",
    [
        [a_file("../../out")],
        [a_file("/tmp/out")],
        [(a_header("l", tarfile.SYMTYPE, linkname="../.."), b""), a_file("l/out")],
        [(a_header("l", tarfile.SYMTYPE, linkname="/"), b"")],
        # Both links stay inside; a file through one is refused all the same.
        [a_file("d/x"), (a_header("l", tarfile.SYMTYPE, linkname="d"), b""), a_file("l/out")],
        [(a_header("l", tarfile.LNKTYPE, linkname="absent"), b"")],
        [(a_header("dev", tarfile.CHRTYPE, devmajor=1, devminor=3), b"")],
    ],
)
def test_no_archive_leads_out(place: Place, members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    place.refused(place.serve("a.tgz", a_tar(members)))
    assert not [path for path in place.data.parent.rglob("out") if "out" in path.name]


def test_a_hard_link_to_what_the_task_has_there_is_refused(place: Place) -> None:
    place.disk.prepare(A1, "server", ME, [])
    (place.task / "local").mkdir()
    (place.task / "local/planted").symlink_to("/etc/passwd")
    packed = a_tar([(a_header("l", tarfile.LNKTYPE, linkname="planted"), b"")])
    assert "leads to no file of it" in place.refused(place.serve("a.tgz", packed))


@pytest.mark.parametrize("planted", ["local", "local/app", "local/app/run"])
def test_no_planted_link_is_followed(place: Place, tmp_path: Path, planted: str) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "run").write_text("precious")
    place.disk.prepare(A1, "server", ME, [])
    link = place.task / planted
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(victim / "run" if planted.endswith("run") else victim)
    wanted = place.serve("a.tgz", a_tar([a_file("app/run", b"new")]))
    if planted.endswith("run"):
        place.put(wanted)
        assert (place.task / "local/app/run").read_bytes() == b"new"
        assert not (place.task / "local/app/run").is_symlink()
    else:
        assert "is not followed" in place.refused(wanted)
    assert (victim / "run").read_text() == "precious"
    assert [path.name for path in victim.iterdir()] == ["run"]


def test_a_bomb_is_refused_and_said_with_its_source(place: Place) -> None:
    place.restart(limits=UnpackLimits(total_bytes=1_000_000))
    words = place.refused(place.serve("a.tgz", a_tar([a_file("zeros", bytes(50_000_000))])))
    assert words == f"{place.host.url}/a.tgz: the archive unpacks to more than 1000000 bytes"


def test_a_restart_of_the_task_leaves_what_it_changed_and_needs_no_network(place: Place) -> None:
    wanted = place.serve("a.tgz", a_tar([a_file("state", b"new")]))
    place.put(wanted)
    (place.task / "local/state").write_bytes(b"changed")
    place.host.files.clear()
    for kept in (place.data / "artifacts").iterdir():
        kept.unlink()
    place.restart()
    place.put(wanted)
    assert (place.task / "local/state").read_bytes() == b"changed"
    assert len(place.host.requests) == 1


def test_what_was_put_in_half_is_put_in_whole(place: Place) -> None:
    good = place.serve("a.tgz", a_tar([a_file("run", b"new")]))
    place.refused(good, place.serve("b.tgz", b"no archive"))
    (place.task / "local/run").write_bytes(b"half")
    place.put(good)
    assert (place.task / "local/run").read_bytes() == b"new"
    assert len(place.host.requests) == 2


def test_a_second_task_fetches_nothing(place: Place) -> None:
    wanted = place.serve("tool", b"x")
    place.put(wanted)
    place.restart()
    place.put(wanted, task="other")
    assert (place.disk.paths(A1, "other").task / "local/tool").read_bytes() == b"x"
    assert place.told == [f"{place.host.url}/tool"]
    assert place.host.requests == ["/tool"]


def test_what_the_policy_forbids_is_refused_also_where_it_is_kept(place: Place) -> None:
    wanted = place.serve("tool", b"x")
    place.put(wanted)
    place.restart(policy=ArtifactPolicy(hosts=("example.org",)))
    with pytest.raises(ArtifactError, match=r"from the host 127\.0\.0\.1:"):
        place.put(wanted, task="other")


def test_unpacking_ends_once_nobody_wants_it(place: Place) -> None:
    wanted = place.serve("a.tgz", a_tar([a_file(str(number)) for number in range(10)]))
    place.put(wanted, task="other")
    place.disk.prepare(A1, "server", ME, [])
    unwanted = threading.Event()
    unwanted.set()
    with pytest.raises(ArtifactsUnwanted):
        place.artifacts.provide(
            [wanted], place.folders, ME, downloads=place.told.append, is_unwanted=unwanted.is_set
        )
    assert not (place.task / "local/0").exists()
    place.put(wanted)
    assert (place.task / "local/9").exists()


def test_the_allocations_end_removes_all_of_it(place: Place) -> None:
    place.put(place.serve("tool", b"x"))
    place.disk.remove(A1)
    assert not place.folders.logs.parent.exists()
    assert list((place.data / "artifacts").iterdir())
