"""The node's own age key, and values encrypted to it."""

import subprocess
import sys
from pathlib import Path

import pyrage
import pytest

from agent.age_key import AgeKey, AgeKeyUnusable, open_age_key
from agent.doors import SecretMissing
from agent.secret_policy import SecretPolicy, SecretsOfJob
from agent.secrets_folder import SecretsFolder


def opened(path: Path) -> AgeKey:
    key = open_age_key(path, is_wanted=True)
    assert key is not None
    return key


def encrypted(text: bytes, *recipients: str) -> str:
    keys = [pyrage.x25519.Recipient.from_str(one) for one in recipients]
    armored: bytes = pyrage.encrypt(text, keys, armored=True)
    return armored.decode()


def test_a_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "age.key"
    first = opened(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert opened(path).recipient == first.recipient
    assert first.recipient.startswith("age1")
    assert list(tmp_path.iterdir()) == [path]
    assert f"# public key: {first.recipient}\n" in path.read_text()


def test_what_was_encrypted_to_it(tmp_path: Path) -> None:
    """Also to others beside it; one line end at its end is none of the value."""
    key, other = opened(tmp_path / "a"), opened(tmp_path / "b")
    ciphertext = encrypted("grün\n\n".encode(), other.recipient, key.recipient)
    assert key.decrypt(ciphertext) == other.decrypt(f"\n{ciphertext.strip()}") == "grün\n"
    assert SecretsFolder(None, key).decrypted(ciphertext) == "grün\n"
    assert (
        SecretsOfJob(SecretsFolder(None, key), SecretPolicy(jobs={}), "web").decrypted(ciphertext) == "grün\n"
    )


def test_what_was_not(tmp_path: Path) -> None:
    """The reason names the key to encrypt to, and nothing of what was encrypted."""
    key, other = opened(tmp_path / "a"), opened(tmp_path / "b")
    foreign = encrypted(b"marker-4711", other.recipient)
    for ciphertext in (foreign, foreign.replace("A", "B"), "nonsense", ""):
        with pytest.raises(
            SecretMissing, match=f"cannot be decrypted on this node .* {key.recipient}"
        ) as failure:
            key.decrypt(ciphertext)
        assert "marker" not in str(failure.value)
    with pytest.raises(SecretMissing, match="is no UTF-8 text"):
        key.decrypt(encrypted(b"\xff", key.recipient))
    with pytest.raises(SecretMissing, match="has no age key"):
        SecretsFolder(tmp_path).decrypted(foreign)


def test_several_identities_in_one_file(tmp_path: Path) -> None:
    """As while a key is replaced: the first is told, all decrypt."""
    old, new = opened(tmp_path / "old"), opened(tmp_path / "new")
    both = tmp_path / "both"
    both.write_text((tmp_path / "new").read_text() + "\n" + (tmp_path / "old").read_text())
    both.chmod(0o600)
    key = opened(both)
    assert key.recipient == new.recipient
    assert key.decrypt(encrypted(b"x", old.recipient)) == "x"


@pytest.mark.parametrize("content", ["", "# nothing\n", "AGE-SECRET-KEY-1NONE\n", "\xff"])
def test_a_file_that_holds_no_key(tmp_path: Path, content: str) -> None:
    """It is not overwritten: it may be the only copy of a key."""
    path = tmp_path / "age.key"
    path.write_text(content, "latin-1")
    path.chmod(0o600)
    with pytest.raises(AgeKeyUnusable, match="holds no identity of age"):
        opened(path)
    assert path.read_text("latin-1") == content


def test_a_key_that_is_open_to_others(tmp_path: Path) -> None:
    opened(tmp_path / "age.key")
    (tmp_path / "age.key").chmod(0o644)
    with pytest.raises(AgeKeyUnusable, match=r"open to others \(mode 0644\); chmod 600"):
        opened(tmp_path / "age.key")


def test_a_key_in_a_folder_that_is_missing(tmp_path: Path) -> None:
    """As on a disk that is full: one that nobody asked for keeps no agent from starting."""
    with pytest.raises(AgeKeyUnusable, match="cannot be read or made: No such file or directory"):
        opened(tmp_path / "none" / "age.key")
    assert open_age_key(tmp_path / "none" / "age.key", is_wanted=False) is None


WITHOUT = """
import sys
sys.path[:0] = sys.argv[1:3]
from pathlib import Path
from agent.age_key import AgeKeyUnusable, open_age_key
print(open_age_key(Path(sys.argv[3]), is_wanted=False))
try:
    open_age_key(Path(sys.argv[3]), is_wanted=True)
except AgeKeyUnusable as error:
    print(error)
"""


def test_without_the_library(tmp_path: Path) -> None:
    """The node has no key; one that was asked for says what to install."""
    installed, site, key = Path(pyrage.__file__).parents[1], tmp_path / "site", tmp_path / "age.key"
    site.mkdir()
    for one in installed.iterdir():
        if not one.name.startswith("pyrage"):
            site.joinpath(one.name).symlink_to(one)
    root = Path(__file__).parents[3]
    said = subprocess.run(
        [sys.executable, "-I", "-S", "-c", WITHOUT, str(site), str(root), str(key)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    assert said.splitlines()[0] == "None"
    assert "cannot be used without the library for it: pip install 'trueup[age]'" in said
    assert not key.exists()
