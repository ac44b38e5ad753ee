"""A hostile document of each shape, given to `trueup validate`: refused within 2 s and 200 MB.

In CPU of the command, and the most memory it ever had, both counted by the kernel; beside the same command on a good
document, which is what starting Python and reading the schemas takes.
"""

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.bench.measure import figure, note, title
from tests.bench.trees import job_text
from tests.e2e.cluster import TRUEUP, environment

CPU_SECONDS, MEMORY_MB = 2.0, 200.0
_MEASURE = """
import resource, subprocess, sys
null = subprocess.DEVNULL
code = subprocess.run(sys.argv[1:], stdin=null, stdout=null, stderr=null).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(code, used.ru_utime + used.ru_stime, used.ru_maxrss)
"""
"""By a small process between: the kernel counts what a parent has as memory of the child that it starts."""


def _alias_bomb() -> str:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    return "kind: Job\nname: web\n" + "\n".join(lines) + "\n"


def _merge_bomb() -> str:
    lines = ["m0: &m0 {a: 1, b: 2}"]
    lines += [f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 9)}]}}" for n in range(1, 12)]
    return "kind: Job\nname: web\n" + "\n".join(lines) + "\n"


_JOB = job_text(1)
HOSTILE: Mapping[str, Callable[[], str]] = {
    "alias bomb": _alias_bomb,
    "merge bomb": _merge_bomb,
    "lists nested 100,000 deep": lambda: "kind: Job\nname: web\ngroups: " + "[" * 100_000,
    "maps nested 20,000 deep": lambda: "kind: Job\nname: " + "{a: " * 20_000 + "1" + "}" * 20_000 + "\n",
    "indentation 5,000 deep": lambda: "kind: Job\n" + "".join(" " * n + "a:\n" for n in range(5_000)),
    "a scalar of 30 MB": lambda: f"kind: Job\nname: {'x' * 30_000_000}\n",
    "a file of 100 MB": lambda: "kind: Job\nname: web\n" + "# nothing to see here\n" * 4_700_000,
    "a million keys": lambda: "kind: Job\n" + "".join(f"k{n}: 1\n" for n in range(1_000_000)),
    "100,000 documents": lambda: "---\nkind: Job\n" * 100_000,
    "a number of 5,000 digits": lambda: _JOB.replace("count: 10", f"count: {'9' * 5_000}"),
    "a number of a million digits": lambda: _JOB.replace("count: 10", f"count: {'9' * 1_000_000}"),
    "a sexagesimal of 100,000 parts": lambda: _JOB.replace("count: 10", "count: 1" + ":59" * 100_000),
    "a duration of 100,000 parts": lambda: _JOB.replace(
        "kill_timeout: 5s", f"kill_timeout: {'1h1s' * 100_000}"
    ),
    "a catastrophic pattern": lambda: (
        "kind: Template\nname: t\n"
        'parameters: {p: {type: string, pattern: "^(a+)+$", default: "' + "a" * 60 + 'b"}}\n'
        "job: {groups: [{tasks: [{config: {command: [sleep]}}]}]}\n"
    ),
    "a constraint with a catastrophic pattern": lambda: _JOB.replace(
        "operator: is_not_set", 'operator: regexp, value: "^(a+)+$"'
    ),
    "a tag of Python": lambda: "kind: Job\nname: !!python/object/apply:os.system [id]\n",
    "NUL bytes": lambda: _JOB + "\0" * 100_000,
}


@pytest.mark.parametrize("shape", HOSTILE)
def test_a_hostile_document(tmp_path: Path, shape: str) -> None:
    title(f"Hostile: {shape}")
    good = _validated(tmp_path / "good", _JOB)
    assert good[0] == 0, "a good document is refused"
    code, seconds, megabytes = _validated(tmp_path / "hostile", HOSTILE[shape]())
    note(f"a good document: {good[1]:.2f} s, {good[2]:.0f} MB; exit code of this one: {code}")
    figure("CPU until it is refused", seconds, CPU_SECONDS, "s")
    figure("memory at most", megabytes, MEMORY_MB, "MB")
    assert code in {0, 1}, "neither refused nor taken"


def _validated(folder: Path, text: str) -> tuple[int, float, float]:
    """Exit code, seconds of CPU and most memory in MB of the command that reads this document."""
    folder.mkdir()
    folder.joinpath("web.yaml").write_text(text)
    measured = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _MEASURE, TRUEUP, "validate", folder],
        env=environment(),
        check=True,
        capture_output=True,
        text=True,
    )
    code, seconds, kilobytes = measured.stdout.split()
    return int(code), float(seconds), int(kilobytes) * 1024 / 1e6
