"""Becomes a command in a task's surroundings where its shim cannot be asked: started by `agent/drivers/beside.py`.

What is to be run comes as JSON on standard input, never in an argument, since the environment may hold secrets.
"""

import json
import os

from .entry import Surroundings


def main(report: int, folder: int) -> None:
    """Runs the command in the open *folder*; what goes wrong is said on *report*. Never returns."""
    for descriptor in (report, folder):
        os.set_inheritable(descriptor, False)
    with os.fdopen(0, "rb", closefd=False) as asked:
        order = json.load(asked)
    surroundings = Surroundings(
        environment=order["environment"],
        cwd=f"/proc/self/fd/{folder}",
        uid=order["uid"],
        gid=order["gid"],
        groups=order["groups"],
        cgroup_folders=order["cgroups"],
        oom_score=0,
        limits=order["limits"],
    )
    surroundings.execute(order["command"], output=1, errors=1, go=-1, report=report)
