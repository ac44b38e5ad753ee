"""Where to listen, and what must be given before others may ask."""

import pytest

from cli.binds import agent_bind_problem, is_loopback, parse_bind, server_bind_problem


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:7430", ("127.0.0.1", 7430)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:80", ("::1", 80)),
        (":7430", ("0.0.0.0", 7430)),  # noqa: S104 - what it means
    ],
)
def test_host_and_port_are_read(text: str, address: tuple[str, int]) -> None:
    """An empty host is every address, as elsewhere."""
    assert parse_bind(text) == address


@pytest.mark.parametrize("text", ["7430", "localhost", "a:b", "::1:80", "h:70000", "h:-1", ""])
def test_what_is_no_address_says_the_form(text: str) -> None:
    """ValueError in words a person can act on."""
    with pytest.raises(ValueError, match=r"write"):
        parse_bind(text)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("LOCALHOST.", True),
        ("0.0.0.0", False),  # noqa: S104 - as above
        ("::", False),
        ("10.0.0.1", False),
        ("myhost", False),
        ("localhost.evil.org", False),
        ("", False),
    ],
)
def test_only_what_this_machine_alone_reaches_is_loopback(host: str, *, loopback: bool) -> None:
    """A name may resolve to anything."""
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("tls", "token", "insecure", "public", "missing"),
    [
        (False, False, False, False, ["--tls-cert", "--insecure", "--read-token-file", "--public-read"]),
        (True, False, False, False, ["--read-token-file"]),
        (False, True, False, False, ["--insecure"]),
        (False, False, True, False, ["--read-token-file"]),
        (True, True, False, False, []),
        (False, True, True, False, []),
        (True, False, False, True, []),
        (False, False, True, True, []),
    ],
)
def test_beyond_loopback_a_server_wants_tls_and_a_read_token(
    *, tls: bool, token: bool, insecure: bool, public: bool, missing: list[str]
) -> None:
    """Each may be gone without only where that is said."""
    options = {"has_tls": tls, "has_read_token": token, "insecure": insecure, "public_read": public}
    problem = server_bind_problem("10.0.0.1", **options)
    assert (problem is None) is (not missing)
    for option in missing:
        assert option in (problem or "")
    assert server_bind_problem("127.0.0.1", **options) is None


def test_an_agent_beyond_loopback_wants_tls() -> None:
    """Its callers always show the node's secret, so there is no read token."""
    assert agent_bind_problem("127.0.0.1", has_tls=False, insecure=False) is None
    assert agent_bind_problem("10.0.0.1", has_tls=True, insecure=False) is None
    assert agent_bind_problem("10.0.0.1", has_tls=False, insecure=True) is None
    problem = agent_bind_problem("10.0.0.1", has_tls=False, insecure=False)
    assert problem == (
        "--bind 10.0.0.1 can be reached from other machines, and wants TLS (--tls-cert and --tls-key; "
        "--insecure goes without); --bind 127.0.0.1:PORT needs neither"
    )
