"""The forked child on its way to the task's program: it leaves everything of the shim behind, then executes it.

Between fork and exec; what goes wrong is said on a pipe to the shim as `STEP` and errno, in JSON.
"""

import json
import os
import signal

from . import cgroups, limits, system

_CHANGED_SIGNALS = (
    signal.SIGCHLD,
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGPIPE,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGXFSZ,
)
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Surroundings:
    """Everything a program of one task gets: the same for the task itself and for its exec checks."""

    __slots__ = ("cgroups", "cwd", "environment", "gid", "groups", "limits", "oom_score", "uid")

    def __init__(
        self,
        *,
        environment: dict[str, str],
        cwd: str,
        uid: int | None,
        gid: int | None,
        groups: list[int],
        cgroup_folders: list[str],
        oom_score: int,
        limits: list[limits.Limit],
    ) -> None:
        self.environment = environment
        self.cwd = cwd
        self.uid = uid
        self.gid = gid
        self.groups = groups
        self.cgroups = cgroup_folders
        self.oom_score = oom_score
        self.limits = limits

    def execute(self, command: list[str], *, output: int, errors: int, go: int, report: int) -> None:
        """Becomes the program *command* in a session of its own; never returns.

        Waits for a byte on *go* just before (-1: does not), so that the shim has the process on record first; its
        end without one means that the shim is gone, and nothing is executed.
        """
        step = "prepare"
        shim = os.getppid()
        try:
            os.setsid()
            _reset_signals()
            step = "join the cgroup"
            for folder in self.cgroups:
                cgroups.join(folder)
            system.protect_from_oom(self.oom_score)
            step = "connect the output"
            _connect(output, errors)
            os.umask(0o022)
            step = "set the limits"
            limits.apply(self.limits)
            step = "switch user"
            self._switch_user()
            step = "enter the working directory"
            os.chdir(self.cwd)
            step = "start"
            system.die_with_parent(signal.SIGKILL)
            if os.getppid() != shim or (go >= 0 and not os.read(go, 1)):
                os._exit(127)
            _replace(command, self.environment)
        except limits.Refused as refused:
            os.write(report, json.dumps([f"set the limit {refused.name}", refused.errno or 0]).encode())
        except OSError as error:
            os.write(report, json.dumps([step, error.errno or 0]).encode())
        except BaseException as error:  # noqa: BLE001 - a fork must not go on as a second shim
            os.write(report, json.dumps([f"{step} ({error!r})", 0]).encode())
        finally:
            os._exit(127)

    def _switch_user(self) -> None:
        if self.uid is None or self.gid is None:
            return
        os.setgroups(self.groups)
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)


def _reset_signals() -> None:
    """Undoes what Python, the spawner and the shim did; the spawner itself began with all of them as they come."""
    signal.set_wakeup_fd(-1)
    for number in _CHANGED_SIGNALS:
        system.set_signal(number, system.DEFAULT)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _connect(output: int, errors: int) -> None:
    """/dev/null as standard input; every other descriptor of the shim closes itself at the exec."""
    nothing = os.open("/dev/null", os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(errors, 2)


def _replace(command: list[str], environment: dict[str, str]) -> None:
    """Executes *command*; a bare name is looked up in the PATH of *environment*, as its own user."""
    name = command[0]
    if "/" in name:
        os.execve(name, command, environment)
    failure: OSError = FileNotFoundError(2, "not found")
    for folder in environment.get("PATH", _DEFAULT_PATH).split(":"):
        try:
            os.execve(f"{folder or '.'}/{name}", command, environment)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            failure = error
    raise failure
