"""Git over https, as a forge serves it: TLS, a login, `git http-backend` behind it."""

import base64
import contextlib
import os
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import trustme


class GitHttps:
    """Serves the repositories under *folder*. *redirect_to* set: answers everything with a redirect there."""

    def __init__(self, folder: Path, login: str = "") -> None:
        self.folder = folder
        self.login = login
        self.redirect_to = ""
        self.seen: list[str] = []
        self.ca_file = folder / "ca.pem"
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.ca_file))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
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
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()


def _handler(git: GitHttps) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Says nothing."""

        def _answer(self) -> None:
            sent = self.headers.get("Authorization", "")
            git.seen.append(sent)
            wanted = f"Basic {base64.b64encode(git.login.encode()).decode()}"
            if git.redirect_to:
                self._end(302, {"Location": git.redirect_to + self.path})
            elif git.login and sent != wanted:
                self._end(401, {"WWW-Authenticate": 'Basic realm="git"'})
            else:
                self._run()

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
            environment = {
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(git.folder),
                "GIT_HTTP_EXPORT_ALL": "1",
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": "safe.directory",
                "GIT_CONFIG_VALUE_0": "*",
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

    return Handler
