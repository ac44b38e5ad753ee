"""Secrets and accounts of this machine."""

import os
from pathlib import Path

import pytest

from agent.accounts import SystemAccounts
from agent.doors import SecretMissing
from agent.secrets_folder import SecretsFolder


def test_values_lose_one_line_end_and_change_with_their_file(tmp_path: Path) -> None:
    (tmp_path / "db-password").write_text("hunter2\n")
    secrets = SecretsFolder(tmp_path)
    assert secrets.value("db-password") == "hunter2"
    (tmp_path / "db-password").write_text("other\n\n")
    assert secrets.value("db-password") == "other\n"
    assert list(secrets.names()) == ["db-password"]


def test_a_link_that_leads_to_itself(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(SecretMissing, match="leads to itself"):
        SecretsFolder(tmp_path).value("loop")


def test_links_are_followed_inside_the_folder_alone(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    (folder / "..2026").mkdir(parents=True)
    (folder / "..2026" / "inside").write_text("in")
    (folder / "inside").symlink_to("..2026/inside")
    (tmp_path / "outside").write_text("out")
    (folder / "outside").symlink_to(tmp_path / "outside")
    secrets = SecretsFolder(folder)
    assert secrets.value("inside") == "in"
    with pytest.raises(SecretMissing, match="leaves the secrets folder"):
        secrets.value("outside")


@pytest.mark.parametrize("name", ["../x", "", ".hidden", "a/b", "none"])
def test_a_name_that_is_none_is_missing(tmp_path: Path, name: str) -> None:
    with pytest.raises(SecretMissing):
        SecretsFolder(tmp_path).value(name)


def test_what_is_no_text_or_too_large_is_said_without_its_value(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "large").write_bytes(b"x" * (1024**2 + 1))
    with pytest.raises(SecretMissing, match="no UTF-8"):
        SecretsFolder(tmp_path).value("binary")
    with pytest.raises(SecretMissing, match="larger"):
        SecretsFolder(tmp_path).value("large")


def test_without_a_folder_there_are_none() -> None:
    assert SecretsFolder(None).names() == ()
    with pytest.raises(SecretMissing, match="--secrets"):
        SecretsFolder(None).value("db")


def test_accounts_are_those_of_the_machine() -> None:
    accounts = SystemAccounts()
    assert accounts.account("").uid == os.geteuid()
    assert accounts.account("root").home == "/root"
    assert accounts.account("4321987").uid == 4321987
    with pytest.raises(LookupError, match='no user "nobody-of-that-name"'):
        accounts.account("nobody-of-that-name")
