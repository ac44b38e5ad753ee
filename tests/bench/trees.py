"""Spec trees as benchmarks need them: many jobs as people write them, a file each."""

from pathlib import Path

_JOB = """\
kind: Job
name: {name}
priority: {priority}
labels: {{team: shop, tier: "{tier}"}}
constraints:
  - {{attribute: node.labels.disk, operator: is_not_set}}
update: {{max_parallel: 2, min_healthy_time: 1s}}
groups:
  - name: app
    count: {count}
    ports: [{{name: http}}]
    restart: {{attempts: 2, interval: 30m, delay: 15s, mode: fail}}
    tasks:
      - name: server
        config: {{command: [python3, -m, http.server, "${{PORT_http}}"]}}
        env:
          MODE: prod
          LISTEN: "0.0.0.0:${{PORT_http}}"
          RELEASE: "{release}"
        resources: {{cpu: 0.01, memory: 16MiB}}
        checks: [{{type: http, port: http, path: /health, interval: 10s, timeout: 2s}}]
        logs: {{max_files: 3, max_size: 1MiB}}
        kill_timeout: 5s
"""


def job_text(number: int, *, count: int = 10, release: int = 1) -> str:
    """A service of some 800 bytes."""
    return _JOB.format(
        name=f"job-{number:04}", priority=50 + number % 3, tier=number % 5, count=count, release=release
    )


def write_tree(folder: Path, jobs: int, *, count: int = 10) -> None:
    """A file for each job, a hundred to a folder."""
    for number in range(jobs):
        path = path_of(folder, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(job_text(number, count=count))


def path_of(folder: Path, number: int) -> Path:
    """Where the job of that number is written."""
    return folder / f"team-{number // 100:02}" / f"job-{number:04}.yaml"
