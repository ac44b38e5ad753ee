"""What is kept of artifacts, how long, and who waits for whom."""

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.artifacts.cache import ArtifactCache, CacheLimits
from agent.artifacts.sources import ArtifactSources
from agent.doors import ArtifactError, ArtifactsUnwanted, WantedArtifact
from tests.unit.agent.artifact_host import ANY_HOST, ArtifactHost, a_wanted, an_artifact_host
from tests.unit.agent.node import until

CONTENT = b"content" * 50_000


@pytest.fixture
def host() -> Iterator[ArtifactHost]:
    with an_artifact_host() as made:
        made.files = {"/a": CONTENT, "/b": CONTENT + b"b"}
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "artifacts"


def a_cache(folder: Path, limits: CacheLimits | None = None) -> ArtifactCache:
    return ArtifactCache(folder, ArtifactSources(ANY_HOST), limits)


def opened(cache: ArtifactCache, wanted: WantedArtifact, unwanted: threading.Event | None = None) -> bytes:
    is_unwanted = (unwanted or threading.Event()).is_set
    with cache.open(wanted, lambda _shown: None, is_unwanted) as stream:
        return stream.read()


def kept(folder: Path) -> list[str]:
    return sorted(path.name.partition("-")[0] for path in folder.iterdir())


def test_a_second_time_and_a_new_agent_fetch_nothing(host: ArtifactHost, folder: Path) -> None:
    wanted = a_wanted(f"{host.url}/a", CONTENT)
    told: list[str] = []
    cache = a_cache(folder)
    for one in (cache, cache, a_cache(folder)):
        with one.open(wanted, told.append, lambda: False) as stream:
            assert stream.read() == CONTENT
    assert host.requests == ["/a"]
    assert told == [f"{host.url}/a"]
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in folder.iterdir()] == [0o600]


def test_sha512(host: ArtifactHost, folder: Path) -> None:
    import hashlib

    wanted = a_wanted(f"{host.url}/a", checksum=f"sha512:{hashlib.sha512(CONTENT).hexdigest()}")
    assert opened(a_cache(folder), wanted) == CONTENT
    assert kept(folder) == ["sha512"]


def test_a_wrong_checksum_keeps_nothing(host: ArtifactHost, folder: Path) -> None:
    wanted = a_wanted(f"{host.url}/a", b"something else")
    with pytest.raises(ArtifactError, match="is not what the job wants: its sha256 is ") as caught:
        opened(a_cache(folder), wanted)
    assert not caught.value.temporary
    assert kept(folder) == []


def test_what_an_earlier_agent_did_not_finish_is_never_taken_for_whole(
    host: ArtifactHost, folder: Path
) -> None:
    folder.mkdir()
    (folder / "part-1").write_bytes(CONTENT[:1000])
    cache = a_cache(folder)
    assert kept(folder) == []
    assert opened(cache, a_wanted(f"{host.url}/a", CONTENT)) == CONTENT


def test_what_was_damaged_on_the_disk_is_fetched_anew(host: ArtifactHost, folder: Path) -> None:
    cache, wanted = a_cache(folder), a_wanted(f"{host.url}/a", CONTENT)
    opened(cache, wanted)
    (path,) = folder.iterdir()
    path.write_bytes(CONTENT[:-1] + b"?")
    assert opened(cache, wanted) == CONTENT
    assert host.requests == ["/a", "/a"]


def test_two_that_want_the_same_wait_for_one_download(host: ArtifactHost, folder: Path) -> None:
    host.held = threading.Event()
    cache, wanted = a_cache(folder), a_wanted(f"{host.url}/a", CONTENT)
    with ThreadPoolExecutor(8) as starts:
        waiting = [starts.submit(opened, cache, wanted) for _ in range(8)]
        until(lambda: any(one.waiting == 8 for one in cache._downloads.by_source.values()))
        host.held.set()
        assert [one.result(30) for one in waiting] == [CONTENT] * 8
    assert host.requests == ["/a"]


def begun(
    starts: ThreadPoolExecutor, cache: ArtifactCache, host: ArtifactHost
) -> tuple[Future[bytes], threading.Event]:
    unwanted = threading.Event()
    future = starts.submit(opened, cache, a_wanted(f"{host.url}/a", CONTENT), unwanted)
    until(lambda: cache._downloads.by_source)
    return future, unwanted


def test_a_start_that_is_not_wanted_any_more_ends_at_once(host: ArtifactHost, folder: Path) -> None:
    """Also while the server says nothing; and nothing of the download stays."""
    host.held = threading.Event()
    cache = a_cache(folder)
    with ThreadPoolExecutor(1) as starts:
        waiting, unwanted = begun(starts, cache, host)
        unwanted.set()
        with pytest.raises(ArtifactsUnwanted):
            waiting.result(5)
    host.held.set()
    until(lambda: folder.exists() and kept(folder) == [])


def test_one_that_waits_on_gets_what_another_gave_up(host: ArtifactHost, folder: Path) -> None:
    host.held = threading.Event()
    cache = a_cache(folder)
    with ThreadPoolExecutor(2) as starts:
        first, unwanted = begun(starts, cache, host)
        second = starts.submit(opened, cache, a_wanted(f"{host.url}/a", CONTENT))
        until(lambda: any(one.waiting == 2 for one in cache._downloads.by_source.values()))
        unwanted.set()
        with pytest.raises(ArtifactsUnwanted):
            first.result(5)
        host.held.set()
        assert second.result(30) == CONTENT
    assert host.requests == ["/a"]


def test_the_end_of_the_agent_ends_all_waiting(host: ArtifactHost, folder: Path) -> None:
    host.held = threading.Event()
    cache = a_cache(folder)
    with ThreadPoolExecutor(1) as starts:
        waiting, _ = begun(starts, cache, host)
        cache.close()
        with pytest.raises(ArtifactsUnwanted):
            waiting.result(5)


def test_a_download_without_an_end_is_left_to_another_try(host: ArtifactHost, folder: Path) -> None:
    host.held = threading.Event()
    cache = a_cache(folder, CacheLimits(wait_seconds=0.3))
    with pytest.raises(ArtifactError, match="took longer than") as caught:
        opened(cache, a_wanted(f"{host.url}/a", CONTENT))
    assert caught.value.temporary


def test_an_error_reaches_all_that_wait_and_the_next_tries_again(host: ArtifactHost, folder: Path) -> None:
    cache, wanted = a_cache(folder), a_wanted(f"{host.url}/a", CONTENT)
    host.statuses["/a"] = 503
    with pytest.raises(ArtifactError) as caught:
        opened(cache, wanted)
    assert caught.value.temporary
    del host.statuses["/a"]
    assert opened(cache, wanted) == CONTENT


def test_what_was_not_used_for_long_goes(host: ArtifactHost, folder: Path) -> None:
    cache = a_cache(folder, CacheLimits(age_seconds=100))
    opened(cache, a_wanted(f"{host.url}/a", CONTENT))
    opened(cache, a_wanted(f"{host.url}/b", CONTENT + b"b"))
    for path in folder.iterdir():
        os.utime(path, (time.time() - 200, time.time() - 200))
    opened(cache, a_wanted(f"{host.url}/a", CONTENT))
    cache.clean_up()
    assert [path.stat().st_size for path in folder.iterdir()] == [len(CONTENT)]
    assert host.requests == ["/a", "/b"]


def test_of_too_much_the_least_recently_used_goes(host: ArtifactHost, folder: Path) -> None:
    cache = a_cache(folder, CacheLimits(total_bytes=len(CONTENT) * 3 // 2))
    opened(cache, a_wanted(f"{host.url}/a", CONTENT))
    opened(cache, a_wanted(f"{host.url}/b", CONTENT + b"b"))
    until(lambda: [path.stat().st_size for path in folder.iterdir()] == [len(CONTENT) + 1])


def test_a_disk_without_room_is_said(host: ArtifactHost, folder: Path) -> None:
    folder.parent.joinpath("artifacts").write_text("a file where the folder should be")
    with pytest.raises(ArtifactError, match="cannot keep artifacts on this node"):
        opened(ArtifactCache(folder, ArtifactSources(ANY_HOST)), a_wanted(f"{host.url}/a", CONTENT))
