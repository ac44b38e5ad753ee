"""Reading models, at the one moment at which threads get into each other's way."""

import subprocess
import sys
import textwrap

FIRST_USE = """
    import sys
    import threading

    import msgspec

    from trueup.models.codec import from_json, from_plain
    from trueup.models.job import Job, TaskGroup
    from trueup.models.state import ClusterState
    from trueup.models.wire import Assignment

    sys.setswitchinterval(1e-6)
    kinds = [Assignment, Job, TaskGroup] * 3
    begin = threading.Barrier(len(kinds))

    def read(kind):
        begin.wait()
        for how, empty in ((from_plain, {}), (from_json, b"{}")):
            try:
                how(empty, kind)
            except msgspec.ValidationError:
                pass

    threads = [threading.Thread(target=read, args=(kind,)) for kind in kinds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""


def test_types_may_be_read_for_the_first_time_by_many_threads_at_once() -> None:
    """Each in a process of its own, since a type is read for the first time once; without care, most of them crash."""
    begun = [
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(FIRST_USE)], stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    for process in begun:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said.decode()
