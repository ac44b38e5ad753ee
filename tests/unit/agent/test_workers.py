"""Workers: in order for one key, side by side for different ones, and nothing that fails takes a thread along."""

import threading

from agent.workers import ThreadWorkers

SECONDS = 10


def test_works_of_one_key_are_done_in_order() -> None:
    workers = ThreadWorkers("test", 4)
    seen: list[int] = []
    done = threading.Event()
    for number in range(200):
        workers.submit("key", lambda one=number: seen.append(one))  # type: ignore[misc]
    workers.submit("key", done.set)
    assert done.wait(SECONDS)
    assert seen == list(range(200))
    workers.close()


def test_a_slow_work_holds_up_its_own_key_alone() -> None:
    workers = ThreadWorkers("test", 2)
    release, behind, other = threading.Event(), threading.Event(), threading.Event()

    def wait() -> None:
        release.wait(SECONDS)

    workers.submit("slow", wait)
    workers.submit("slow", behind.set)
    workers.submit("other", other.set)
    assert other.wait(SECONDS)
    assert not behind.is_set()
    release.set()
    assert behind.wait(SECONDS)
    workers.close()


def test_no_more_threads_than_the_limit_and_all_is_done() -> None:
    workers = ThreadWorkers("test-limit", 3)
    left = threading.Semaphore(0)
    for number in range(50):
        workers.submit(f"key {number}", left.release)
    assert all(left.acquire(timeout=SECONDS) for _ in range(50))
    assert sum(thread.name.startswith("test-limit-") for thread in threading.enumerate()) <= 3
    workers.close()


def test_a_work_that_fails_costs_no_thread() -> None:
    workers = ThreadWorkers("test", 1)
    done = threading.Event()

    def fail() -> None:
        raise RuntimeError

    for number in range(5):
        workers.submit(f"key {number}", fail)
    workers.submit("key 0", done.set)
    assert done.wait(SECONDS)
    workers.close()


def test_after_close_nothing_is_begun_and_threads_end() -> None:
    workers = ThreadWorkers("test-close", 2)
    done = threading.Event()
    workers.submit("key", done.set)
    assert done.wait(SECONDS)
    workers.close()
    late = threading.Event()
    workers.submit("key", late.set)
    for thread in threading.enumerate():
        if thread.name.startswith("test-close-"):
            thread.join(SECONDS)
            assert not thread.is_alive()
    assert not late.is_set()
