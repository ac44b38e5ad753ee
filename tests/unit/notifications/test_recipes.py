"""The recipes of docs/howto/get-told.md do what the page says."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.e2e.cluster import eventually
from tests.receiver import receiving
from trueup.notifications.webhook import Outcome, post
from trueup.signing import sign

PAGE = Path(__file__).parents[3] / "docs" / "howto" / "get-told.md"


def test_the_relay(tmp_path: Path) -> None:
    """What is signed reaches the chat in its form; what is not, or is old, does not; a chat that is away is said so."""
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    (tmp_path / "relay.py").write_text(program)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    host = f"127.0.0.1:{port}"
    body = json.dumps({"text": "web: Degraded"}).encode()

    def tell(*, key: str = "k3y", at: str | None = None) -> Outcome:
        at = at or str(int(time.time()))
        headers = {"webhook-id": "1", "webhook-timestamp": at, "webhook-signature": sign(key, "1", at, body)}
        return post(f"http://{host}", body, headers, allowed_hosts=[host])

    with receiving() as chat:
        environment = {**os.environ, "HOOK_KEY": "k3y", "TARGET": chat.url, "PORT": str(port)}
        relay = subprocess.Popen(
            [sys.executable, str(tmp_path / "relay.py")], env=environment, stderr=subprocess.DEVNULL
        )
        try:
            eventually(lambda: tell() == Outcome())
            assert json.loads(chat.requests[-1].body) == {"text": "web: Degraded"}
            count = len(chat.requests)
            assert "401" in tell(key="another").problem
            assert "401" in tell(at="1600000000").problem
            assert len(chat.requests) == count
            chat.answer = lambda handler: handler.send_error(500)
            assert "502" in tell().problem
        finally:
            relay.kill()
            relay.wait()


def test_the_address_of_ntfy() -> None:
    """Its braces arrive as they are written."""
    (address,) = re.findall(r'url: "(https://ntfy[^"]*)"', PAGE.read_text())
    with receiving() as ntfy:
        url = ntfy.url + "/" + address.partition("example.org/")[2]
        assert post(url, b"{}", {}, allowed_hosts=[ntfy.host]) == Outcome()
    assert ntfy.requests[0].path == "/trueup-7f3a?tpl=yes&title={{.title}}&message={{.text}}"
