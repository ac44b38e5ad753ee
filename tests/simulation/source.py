"""A repository that somebody commits to at random: jobs come, change and go; sometimes it cannot be read."""

from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random

from reconciler.doors import SourceUnavailable
from tests.builders import a_desired, a_group, a_job, a_task
from trueup.models.clock import Clock
from trueup.models.desired import DesiredState
from trueup.models.ids import RevisionId
from trueup.models.job import Job, Port, Service, TaskFile, Update
from trueup.models.revision import SourceStatus
from trueup.models.template import ClusterSettings
from trueup.models.units import Duration

KINDS = ("service-a", "service-b", "service-c", "batch-a", "system-a")


class SimulatedSource:
    """As `reconciler.doors.SpecSource`. `commit` makes a new revision."""

    def __init__(self, random: Random, clock: Clock) -> None:
        self._random, self._clock = random, clock
        self._jobs: dict[str, Job] = {}
        self._number = 0
        self._desired: DesiredState | None = None
        self.away = False
        self.on_change: Callable[[], None] = lambda: None
        self.commit()

    @property
    def jobs(self) -> dict[str, Job]:
        """What the newest revision wants, by name."""
        return dict(self._jobs)

    def commit(self) -> None:
        """Changes one or two jobs. One service is always there: the last job is never removed."""
        for _ in range(self._random.randint(1, 2)):
            name = self._random.choice(KINDS)
            if name in self._jobs and name != "service-a" and self._random.random() < 0.3:
                del self._jobs[name]
            else:
                self._jobs[name] = self._job(name)
        self._jobs.setdefault("service-a", self._job("service-a"))
        self._number += 1
        self._desired = a_desired(
            *self._jobs.values(),
            revision=f"r{self._number}",
            cluster=ClusterSettings(hold="off"),
        )
        self.on_change()

    def read(self, applied: RevisionId | None) -> DesiredState:
        if self.away or self._desired is None:
            raise SourceUnavailable("the remote is away")
        return self._desired

    @property
    def status(self) -> SourceStatus:
        return SourceStatus(kind="git", url="sim", error="the remote is away" if self.away else "")

    @property
    def next_look(self) -> datetime | None:
        return self._clock.now() + timedelta(seconds=15)

    def _job(self, name: str) -> Job:
        kind = name.partition("-")[0]
        draw = self._random
        read = draw.choice([(), (), ("service-a",), ("service-a", "service-b")])
        # Who is found by a service and starts anew for a change of it never comes to rest.
        reaction = "none" if name in {"service-a", "service-b"} else draw.choice(["none", "restart"])
        files = (TaskFile(path="addresses", services=read, on_change=reaction),) if read else ()
        task = a_task(cpu=draw.choice([0.1, 0.5]), env={"V": draw.choice("abc")}, files=files)
        # A fixed port is the job's own: with as many nodes as instances there is always room in the end.
        fixed = Port(name="http", port=8080 + KINDS.index(name))
        ports = draw.choice([(), (Port(name="http"),), (fixed,)])
        services = (Service(name=name, port="http"),) if ports else ()
        group = a_group(
            count=1 if kind == "system" else draw.randint(0, 3),
            tasks=(task,),
            ports=ports,
            services=services,
        )
        update = Update(
            max_parallel=draw.randint(1, 2),
            canary=draw.choice([0, 0, 1]),
            auto_promote=True,
            min_healthy_time=Duration(seconds=1),
        )
        return a_job(name, type=kind, groups=(group,), update=update)
