"""supervisord, beside which processes are measured: started, changed and asked as its users do."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One program of its configuration, *count* processes of it."""

    command: Sequence[str]
    count: int


class Supervisord:
    """One supervisord with all its files in *folder*."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()

    def write(self, programs: Mapping[str, Program]) -> None:
        """Writes the configuration; one that runs takes it with `update`."""
        lines = [
            "[supervisord]",
            "nodaemon=true",
            f"logfile={self._folder}/log",
            f"pidfile={self._folder}/pid",
            f"childlogdir={self._folder}",
            *(["user=root"] if os.geteuid() == 0 else []),
            "[unix_http_server]",
            f"file={self._socket}",
            "[rpcinterface:supervisor]",
            "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
            "[supervisorctl]",
            f"serverurl=unix://{self._socket}",
        ]
        for name, program in programs.items():
            lines += [
                f"[program:{name}]",
                f"command={shlex.join(program.command)}",
                f"numprocs={program.count}",
                "process_name=%(process_num)d",
                "startsecs=0",
            ]
        self._config.write_text("\n".join(lines) + "\n")

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """From its start; at the end it and its processes are ended."""
        words = [_beside_python("supervisord"), "-c", str(self._config)]
        with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
            try:
                yield process
            finally:
                process.terminate()

    def update(self) -> None:
        """`supervisorctl update`: what changed in the configuration is stopped and started anew."""
        words = [_beside_python("supervisorctl"), "-c", str(self._config), "update"]
        subprocess.run(words, check=True, capture_output=True, timeout=120)

    @property
    def _config(self) -> Path:
        return self._folder / "supervisord.conf"

    @property
    def _socket(self) -> Path:
        return self._folder / "socket"


def _beside_python(program: str) -> str:
    return str(Path(sys.executable).with_name(program))
