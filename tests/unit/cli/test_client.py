"""The client: each failure is one line that says what to do."""

import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from flask import Response

import cli.main
from cli.client import path_of
from tests.unit.cli.canned import a_node
from tests.unit.cli.conftest import FakeControlPlane, problem
from trueup.serving import HttpServer, TlsFiles

Run = Callable[..., Result]


def test_nobody_listens(run_alone: Run) -> None:
    """Where it looked, what the system said, and the two ways on."""
    with closing(socket.create_server(("127.0.0.1", 0))) as held:
        port = held.getsockname()[1]
    result = run_alone("nodes", "--address", f"http://127.0.0.1:{port}")
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: cannot reach the control plane at http://127.0.0.1:{port}: Connection refused; "
        "start it with `trueup up`, or say where it is with --address\n"
    )


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:7430", "is no address; write it like http://127.0.0.1:7430"),
        ("ftp://x", "is no address"),
        ("http://", "is no address"),
        ("http://user:pass@host:1", "a password does not belong into --address; use --token-file"),
        ("http://host:99999", "Port out of range"),
    ],
)
def test_an_address_that_is_none_is_a_usage_error(run_alone: Run, address: str, message: str) -> None:
    """Said before anything is asked, and a password is never repeated."""
    result = run_alone("nodes", "--address", address)
    assert result.exit_code == 64
    assert message in result.stderr
    assert "user:pass" not in result.stderr


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda: problem(401, "no token"), "wants a token: no token; give the read token with --token-file"),
        (lambda: problem(503, "32 requests wait already"), "is busy: 32 requests wait already"),
        (lambda: problem(500, "broken"), "failed (500): broken"),
        (lambda: problem(400, "limit is no number"), "refused the request (400): limit is no number"),
        (
            lambda: Response("x", status=404, content_type="text/html"),
            "has no /nodes; is it a trueup control plane?",
        ),
        (lambda: Response("<html>", content_type="text/html"), "did not answer with JSON"),
        (lambda: {"nodes": []}, "did not answer with a list; is it a trueup control plane?"),
        (lambda: Response("", 307, {"Location": "https://x.example.org"}), "points to https://x.example.org"),
        (lambda: [{"name": 7}], "answered in a form this trueup does not know"),
    ],
)
def test_what_a_control_plane_can_answer(
    run: Run, control_plane: FakeControlPlane, answer: Callable[[], object], message: str
) -> None:
    """Each refusal in one line on stderr, exit 1, nothing on stdout."""
    control_plane.answers["/nodes"] = answer()
    result = run("nodes")
    assert result.exit_code == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_a_hostile_detail_does_not_reach_the_terminal_raw(run: Run, control_plane: FakeControlPlane) -> None:
    """What a server says is text of others."""
    control_plane.answers["/nodes"] = problem(400, "\x1b[2J\u202egone")
    assert "\\x1b[2J\\u202egone" in run("nodes").stderr


def test_a_list_is_read_page_after_page(run: Run, control_plane: FakeControlPlane) -> None:
    """All items come out, whatever the size of a page."""
    control_plane.answers["/nodes"] = [a_node(f"node-{number}") for number in range(7)]
    control_plane.page_size = 3
    assert run("nodes", "-o", "name").stdout.splitlines() == [f"node-{number}" for number in range(7)]


def test_the_token_goes_into_the_header(run: Run, control_plane: FakeControlPlane, tmp_path: Path) -> None:
    """As Bearer, from the file."""
    seen: list[str | None] = []

    def answer(request: object) -> list[object]:
        seen.append(request.headers.get("Authorization"))  # type: ignore[attr-defined] # flask's request
        return []

    control_plane.answers["/nodes"] = answer
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text("s3cret\n")
    assert run("nodes", "--token-file", str(token)).exit_code == 0
    assert seen == ["Bearer s3cret"]


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        (None, 0o600, "cannot be read: No such file or directory"),
        ("s3cret", 0o644, "is open to others (mode 0644); chmod 600"),
        ("", 0o600, "does not hold one token on one line"),
        ("a b", 0o600, "does not hold one token on one line"),
        ("schlüssel", 0o600, "does not hold one token on one line"),
    ],
)
def test_token_files_that_are_refused(
    run: Run, tmp_path: Path, content: str | None, mode: int, message: str
) -> None:
    """A secret everyone can read is none; the token itself is never shown."""
    token = tmp_path / "token"
    if content is not None:
        token.write_text(content)
        token.chmod(mode)
    result = run("nodes", "--token-file", str(token))
    assert result.exit_code == 1
    assert message in result.stderr
    assert "s3cret" not in result.stderr


def test_proxies_of_the_environment_are_not_used(run: Run, control_plane: FakeControlPlane) -> None:
    """The control plane is asked directly, or not at all."""
    control_plane.answers["/nodes"] = []
    result = run("nodes", env={"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"})
    assert result.exit_code == 0


def test_names_are_quoted_whole() -> None:
    """No name reaches another resource."""
    assert path_of("jobs", "../nodes?x#y") == "/jobs/..%2Fnodes%3Fx%23y"


def test_an_untrusted_certificate_names_the_option(tmp_path: Path, run_alone: Run) -> None:
    """TLS is checked; with --tls-ca it is trusted."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    fake = FakeControlPlane(answers={"/nodes": []})
    server = HttpServer(
        fake.app(),
        ("127.0.0.1", 0),
        stopping=threading.Event(),
        tls=TlsFiles(certificate=certificate, key=key),
    )
    server.start()
    try:
        refused = run_alone("nodes", "--address", server.url)
        trusted = run_alone("nodes", "--address", server.url, "--tls-ca", str(certificate))
        plain = run_alone("nodes", "--address", server.url.replace("https", "http"))
    finally:
        server.stop()
    assert refused.exit_code == 1
    assert "name the certificate to trust with --tls-ca" in refused.stderr
    assert trusted.exit_code == 0, trusted.stderr
    assert plain.exit_code == 1
    assert len(plain.stderr.splitlines()) == 1
    assert ssl.OPENSSL_VERSION


def test_an_unreadable_certificate_file(run_alone: Run) -> None:
    """Option, path and the system's reason."""
    result = run_alone("nodes", "--tls-ca", "/nowhere/ca.pem")
    assert result.exit_code == 1
    assert "--tls-ca /nowhere/ca.pem cannot be read: No such file or directory" in result.stderr


def test_cli_is_the_parser() -> None:
    """What the tests run is what the entry point runs."""
    assert cli.main.cli.name == "trueup"
    assert CliRunner().invoke(cli.main.cli, ["--version"]).stdout.startswith("trueup ")
