"""Hosts of git as an operator meets them: a forge over TLS with a login, and a machine with sshd."""

import base64
import contextlib
import itertools
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar, Literal

import psutil
import trustme

from tests.require import require

_START_SECONDS = 20.0
Mood = Literal["", "silent", "endless refs", "endless pack", "repeats"]


class GitHttps:
    """Serves the repositories under *folder*.

    *redirect_to* set: answers everything with a redirect there, or only requests by the method *redirects*. *filters*:
    can leave files out. *mood*: takes requests and never answers; names refs for ever; sends a pack of one file
    without end; refuses with what it was sent.
    """

    def __init__(self, folder: Path, login: str = "") -> None:
        self.folder = folder
        self.login = login
        self.redirect_to = ""
        self.redirects: tuple[str, ...] = ("GET", "POST")
        self.filters = True
        self.settings: dict[str, str] = {}
        self.mood: Mood = ""
        self.ending = threading.Event()
        self.seen: list[str] = []
        self.ca_file = folder / "ca.pem"
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.ca_file))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"git": self}))
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def url(self, repository: str = "repo") -> str:
        return f"https://127.0.0.1:{self._server.server_port}/{repository}"

    @contextlib.contextmanager
    def running(self) -> Iterator["GitHttps"]:
        self._thread.start()
        try:
            yield self
        finally:
            self.ending.set()
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    git: ClassVar[GitHttps]

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Says nothing."""

    def _answer(self) -> None:
        sent = self.headers.get("Authorization", "")
        self.git.seen.append(sent)
        wanted = f"Basic {base64.b64encode(self.git.login.encode()).decode()}"
        if self.git.redirect_to and self.command in self.git.redirects:
            self._end(302, {"Location": self.git.redirect_to + self.path})
        elif self.git.login and sent != wanted:
            self._end(401, {"WWW-Authenticate": 'Basic realm="git"'})
        elif self.git.mood == "silent":
            self.git.ending.wait()
        elif self.git.mood == "repeats":
            self._end(403, {"Content-Type": "text/plain"}, f"no entry for {sent}".encode())
        elif self.git.mood == "endless refs":
            self._stream("application/x-git-upload-pack-advertisement", _endless_refs())
        else:
            self._run()

    def _stream(self, kind: str, chunks: Iterator[bytes]) -> None:
        """Sends *chunks* until there are no more, or nobody listens."""
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()
        with contextlib.suppress(OSError):
            for chunk in chunks:
                if self.git.ending.is_set():
                    return
                self.wfile.write(chunk)

    def _end(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _run(self) -> None:
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if self.git.mood == "endless pack" and b"command=fetch" in body:
            self._stream("application/x-git-upload-pack-result", _endless_pack())
            return
        settings = {
            "safe.directory": "*",
            "uploadpack.allowFilter": str(self.git.filters).lower(),
            **self.git.settings,
        }
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.git.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_COUNT": str(len(settings)),
            **{f"GIT_CONFIG_KEY_{number}": name for number, name in enumerate(settings)},
            **{f"GIT_CONFIG_VALUE_{number}": value for number, value in enumerate(settings.values())},
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "REMOTE_ADDR": "127.0.0.1",
        }
        done = subprocess.run(
            ["git", "http-backend"], env=environment, input=body, capture_output=True, check=False
        )
        head, _, answer = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines() if ": " in line)
        status = int(headers.pop("Status", "200").split(" ")[0])
        self._end(status, headers, answer)


def _packet(content: bytes) -> bytes:
    return b"%04x" % (len(content) + 4) + content


def _endless_refs() -> Iterator[bytes]:
    yield _packet(b"# service=git-upload-pack\n") + b"0000"
    yield _packet(b"1" * 40 + b" HEAD\0ofs-delta\n")
    many = b"".join(_packet(b"%040x refs/heads/branch-%d\n" % (number, number)) for number in range(10_000))
    yield from itertools.repeat(many)


def _endless_pack() -> Iterator[bytes]:
    """A pack of one file of a TiB that cannot be made smaller."""
    size = 2**40
    head = bytearray([0xB0 | size & 0xF])
    size >>= 4
    while size:
        head.append(size & 0x7F | (0x80 if size > 0x7F else 0))
        size >>= 7
    packing = zlib.compressobj(0)
    noise = os.urandom(60_000)
    yield _packet(b"packfile\n")
    yield _packet(b"\1PACK" + (2).to_bytes(4, "big") + (1).to_bytes(4, "big") + bytes(head))
    while True:
        if chunk := packing.compress(noise):
            for start in range(0, len(chunk), 60_000):
                yield _packet(b"\1" + chunk[start : start + 60_000])


@dataclass(frozen=True, kw_only=True)
class Sshd:
    """A daemon that serves whoever has *key*; *other_key* is not let in."""

    port: int
    key: Path
    other_key: Path
    known_hosts: Path

    def url(self, repository: Path) -> str:
        """The address of a repository of this machine."""
        user = psutil.Process().username()
        return f"ssh://{user}@127.0.0.1:{self.port}{repository}"


@contextlib.contextmanager
def running_sshd(folder: Path) -> Iterator[Sshd]:
    """An sshd of our own with keys made in *folder*, until the end."""
    require("ssh")
    host, key, other_key, known_hosts = (
        folder / name for name in ("host", "key", "other key", "known hosts")
    )
    for path in (host, key, other_key):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    shutil.copy(folder / "key.pub", folder / "authorized")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (folder / "config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {host}\nAuthorizedKeysFile {folder}/authorized\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\nPermitRootLogin yes\n"
        "PidFile none\nAcceptEnv GIT_PROTOCOL\n"
    )
    known_hosts.write_text(f"[127.0.0.1]:{port} {' '.join((folder / 'host.pub').read_text().split()[:2])}\n")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", str(folder / "config")], stderr=log)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(port):
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.01)
        yield Sshd(port=port, key=key, other_key=other_key, known_hosts=known_hosts)
    finally:
        process.terminate()
        process.wait()


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False
