"""Token files."""

import re
from pathlib import Path

import pytest

from cli.failures import Failed
from cli.tokens import read_token


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        (b"secret\n", 0o644, "is open to others (mode 0644); chmod 600"),
        (b"secret\n", 0o660, "is open to others"),
        (b"", 0o600, "does not hold one token on one line"),
        (b"two words\n", 0o600, "does not hold one token"),
        (b"\xff\n", 0o600, "does not hold one token"),
        (b"x" * 5000, 0o600, "does not hold one token"),
    ],
)
def test_a_token_file_that_cannot_be_used(tmp_path: Path, content: bytes, mode: int, message: str) -> None:
    """Which file and why; its content is never shown."""
    file = tmp_path / "token"
    file.write_bytes(content)
    file.chmod(mode)
    with pytest.raises(Failed, match=re.escape(message)) as failure:
        read_token(file)
    assert "secret" not in failure.value.message


def test_a_token_is_read_without_its_line_break(tmp_path: Path) -> None:
    """A group may read it, as secrets of services are often kept."""
    file = tmp_path / "token"
    file.write_text(" abc \n")
    file.chmod(0o640)
    assert read_token(file) == "abc"


def test_a_token_file_that_is_not_there(tmp_path: Path) -> None:
    """The system's own reason."""
    with pytest.raises(Failed, match="cannot be read: No such file or directory"):
        read_token(tmp_path / "none")
