"""Only commits that someone in the operator's file signed are taken: real keys of ssh and OpenPGP, checked by git."""

import os
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from tests.git_signing import OpenPgpSigner, Signer, SshSigner, keyring, signed
from tests.require import require
from tests.unit.sources_io.repository import ENVIRONMENT, ManualClock, Repo, follow, job_text
from trueup.models.ids import RevisionId
from trueup.models.source_error import SourceUnavailable
from trueup.sources.git import GitSettings, GitTree
from trueup.sources.spec_source import TreeSpecSource, git_remotes_source


@pytest.fixture
def people(tmp_path: Path) -> Path:
    require("ssh")
    folder = tmp_path / "people"
    folder.mkdir()
    return folder


@pytest.fixture
def ann(people: Path) -> SshSigner:
    return SshSigner(people)


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    require("gpg")
    with keyring() as folder:
        yield folder


@pytest.fixture(scope="module")
def bob(home: Path) -> OpenPgpSigner:
    return OpenPgpSigner(home, "bob")


@pytest.fixture
def allowed(tmp_path: Path) -> Path:
    """The operator's file, absent at first."""
    return tmp_path / "allowed"


@pytest.fixture
def source(repo: Repo, allowed: Path, tmp_path: Path, clock: ManualClock) -> TreeSpecSource:
    return follow(repo.path, tmp_path / "data", clock, allowed_signers=allowed)


def refusal(source: TreeSpecSource) -> str:
    """What the next look says, which takes nothing."""
    source.look_now()
    with pytest.raises(SourceUnavailable) as error:
        source.read(None)
    assert source.status.error == str(error.value)
    return str(error.value)


def taken(source: TreeSpecSource) -> str:
    source.look_now()
    return source.read(None).commit.id


def test_key_of_ssh(repo: Repo, source: TreeSpecSource, allowed: Path, ann: SshSigner) -> None:
    allowed.write_text(f"# ops\n\n{ann.allowed()}")
    assert signed(repo, ann, {"a.yaml": job_text("a")}) == taken(source)
    assert signed(repo, ann, {"a.yaml": job_text("a", "2")}) == taken(source)


def test_key_of_openpgp(repo: Repo, source: TreeSpecSource, allowed: Path, bob: OpenPgpSigner) -> None:
    """No agent of gpg stays behind."""
    allowed.write_text(bob.allowed())
    assert signed(repo, bob, {"a.yaml": job_text("a")}) == taken(source)
    agents = [one.info["cmdline"] or [] for one in psutil.process_iter(["cmdline"])]
    assert not [
        words for words in agents if any(str(allowed.parent) in word and "gpg" in words[0] for word in words)
    ]


def test_one_file_for_both_kinds_of_keys(
    repo: Repo, source: TreeSpecSource, allowed: Path, ann: SshSigner, bob: OpenPgpSigner, home: Path
) -> None:
    cy = OpenPgpSigner(home, "cy")
    allowed.write_text(f"{bob.allowed()}{ann.allowed()}# and Cy\n{cy.allowed()}")
    signers: tuple[Signer, ...] = (ann, bob, cy)
    for number, signer in enumerate(signers):
        assert signed(repo, signer, {"a.yaml": job_text("a", str(number))}) == taken(source)


def test_commit_that_nobody_signed_changes_nothing(
    repo: Repo,
    source: TreeSpecSource,
    allowed: Path,
    ann: SshSigner,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is not even read; its id and the reason are told; polling goes on as before, for the remote is well."""
    allowed.write_text(ann.allowed())
    signed(repo, ann, {"a.yaml": job_text("a")})
    good = source.read(None)
    since = source.status.last_success_at
    commit = repo.commit({"a.yaml": None, "b.yaml": "\tnot: yaml"}, author="Eve")
    with monkeypatch.context() as patch:
        patch.setattr("trueup.sources.git.files_of", None)
        for _ in range(4):
            clock.seconds += 15
            with pytest.raises(SourceUnavailable) as error:
                source.read(good.commit.id)
            assert f"{repo.path}: commit {commit} is refused: it has no signature" in str(error.value)
            assert source.next_look == clock.now() + timedelta(seconds=15)
    assert source.status.last_success_at == since
    repo.git("reset", "--quiet", "--hard", "HEAD~1")
    source.look_now()
    assert source.read(good.commit.id) is good
    assert source.status.error == ""


def test_signed_by_somebody_else(
    repo: Repo,
    source: TreeSpecSource,
    allowed: Path,
    ann: SshSigner,
    bob: OpenPgpSigner,
    people: Path,
    home: Path,
) -> None:
    allowed.write_text(ann.allowed() + bob.allowed())
    for eve in (SshSigner(people, "eve"), OpenPgpSigner(home, "eve")):
        commit = signed(repo, eve, {"a.yaml": job_text("a")})
        told = refusal(source)
        assert f"commit {commit} is refused: it is signed with the key " in told
        assert f"which is not in {allowed}" in told


def test_changed_after_it_was_signed(
    repo: Repo, source: TreeSpecSource, allowed: Path, ann: SshSigner, bob: OpenPgpSigner
) -> None:
    allowed.write_text(ann.allowed() + bob.allowed())
    for signer in (ann, bob):
        signed(repo, signer, {"a.yaml": job_text("a")}, subject="harmless")
        whole = repo.git("cat-file", "commit", "HEAD")
        (repo.path / ".git/changed").write_text(whole.replace("harmless", "harmful") + "\n")
        changed = repo.git("hash-object", "-t", "commit", "-w", ".git/changed")
        repo.git("update-ref", "refs/heads/main", changed)
        assert f"commit {changed} is refused: its signature is not of this commit" in refusal(source)


def test_signature_of_another_commit(
    repo: Repo, source: TreeSpecSource, allowed: Path, ann: SshSigner
) -> None:
    """Only the tip is asked, so it must be its own: an unsigned commit on signed ones is refused."""
    allowed.write_text(ann.allowed())
    signed(repo, ann, {"a.yaml": job_text("a")})
    repo.commit({"b.yaml": job_text("b")})
    assert "no signature" in refusal(source)


def test_signed_tip_vouches_for_what_came_before(
    repo: Repo, source: TreeSpecSource, allowed: Path, ann: SshSigner
) -> None:
    """Also for a branch that is merged; a merge itself is signed as any commit."""
    allowed.write_text(ann.allowed())
    repo.commit({"a.yaml": job_text("a")})
    assert signed(repo, ann, {"b.yaml": job_text("b")}) == taken(source)
    repo.git("checkout", "-q", "-b", "side", "HEAD~1")
    repo.commit({"c.yaml": job_text("c")})
    repo.git("checkout", "-q", "main")
    repo.git("merge", "-q", "--no-ff", "-m", "unsigned", "side")
    assert "no signature" in refusal(source)
    repo.git(*ann.options, "commit", "-q", "--amend", "--no-edit", "-S")
    assert taken(source) == repo.git("rev-parse", "HEAD")


def test_signed_tag_does_not_make_its_commit_a_signed_one(
    repo: Repo, allowed: Path, ann: SshSigner, tmp_path: Path, clock: ManualClock
) -> None:
    allowed.write_text(ann.allowed())
    repo.commit({"a.yaml": job_text("a")})
    repo.git(*ann.options, "tag", "-s", "-m", "v1", "v1")
    source = follow(repo.path, tmp_path / "data", clock, ref="v1", allowed_signers=allowed)
    assert "no signature" in refusal(source)


def test_file_is_read_again_when_it_changes(
    repo: Repo, source: TreeSpecSource, allowed: Path, ann: SshSigner, people: Path, bob: OpenPgpSigner
) -> None:
    """Whom it newly names is taken at the next look; who is gone from it signs nothing new."""
    cy = SshSigner(people, "cy")
    allowed.write_text(cy.allowed())
    first = signed(repo, ann, {"a.yaml": job_text("a")})
    assert "not in" in refusal(source)
    allowed.write_text(cy.allowed() + ann.allowed() + bob.allowed())
    assert taken(source) == first
    allowed.write_text(cy.allowed())
    assert taken(source) == first
    for signer in (ann, bob):
        signed(repo, signer, {"a.yaml": job_text("a", signer.name)})
        assert "not in" in refusal(source)


def test_folder_of_the_mirror_may_be_deleted(
    repo: Repo, source: TreeSpecSource, allowed: Path, ann: SshSigner, bob: OpenPgpSigner, tmp_path: Path
) -> None:
    """While it is in use: all of it comes again, keys and mirror."""
    allowed.write_text(ann.allowed() + bob.allowed())
    for signer in (ann, bob):
        first = signed(repo, signer, {"a.yaml": job_text("a", signer.name)})
        assert taken(source) == first
        shutil.rmtree(tmp_path / "data/git")
        assert taken(source) == first
    shutil.rmtree(tmp_path / "data/git")
    repo.commit({})
    assert "no signature" in refusal(source)


def test_what_a_killed_check_left_goes(
    repo: Repo, source: TreeSpecSource, allowed: Path, ann: SshSigner, tmp_path: Path
) -> None:
    allowed.write_text(ann.allowed())
    signed(repo, ann, {"a.yaml": job_text("a")})
    taken(source)
    (folder,) = tmp_path.glob("data/git/*/tmp")
    (folder / ".git_vtag_tmpx").write_text("")
    taken(source)
    assert list(folder.iterdir()) == []


def test_restart_trusts_nothing_it_took_before(
    repo: Repo, allowed: Path, ann: SshSigner, tmp_path: Path, clock: ManualClock
) -> None:
    repo.commit({"a.yaml": job_text("a")})
    follow(repo.path, tmp_path / "data", clock).read(None)
    allowed.write_text(ann.allowed())
    assert "no signature" in refusal(follow(repo.path, tmp_path / "data", clock, allowed_signers=allowed))


def test_what_is_pushed_to_the_server_in_an_emergency_is_signed_too(
    repo: Repo, allowed: Path, ann: SshSigner, tmp_path: Path, clock: ManualClock
) -> None:
    """From the clone that everybody has: an unsigned one is refused there as it is everywhere."""
    allowed.write_text(ann.allowed())
    host, emergency = tmp_path / "host.git", tmp_path / "data/emergency.git"
    repo.git("init", "--quiet", "--bare", "--initial-branch=main", str(host))
    first = signed(repo, ann, {"a.yaml": job_text("a")})
    repo.git("push", "--quiet", str(host), "main")
    remote = GitSettings(url=str(host), allowed_signers=allowed)
    source = git_remotes_source([remote], tmp_path / "data", clock, environment=ENVIRONMENT)
    try:
        assert taken(source) == first
        source.read(RevisionId(first))
        host.rename(tmp_path / "away")
        repo.commit({"a.yaml": job_text("a", "2")}, author="Eve")
        repo.git("push", "--quiet", str(emergency), "main")
        assert "has no signature" in refusal(source)
        second = signed(repo, ann, {"a.yaml": job_text("a", "3")})
        repo.git("push", "--quiet", str(emergency), "main")
        assert taken(source) == second
    finally:
        source.close()


def test_key_of_ssh_that_was_valid_for_a_time(
    repo: Repo, source: TreeSpecSource, allowed: Path, ann: SshSigner
) -> None:
    allowed.write_text(ann.allowed('valid-before="20200101"'))
    signed(repo, ann, {"a.yaml": job_text("a")})
    assert "not in" in refusal(source)
    allowed.write_text(ann.allowed('valid-after="20200101",namespaces="git"'))
    assert taken(source)
    allowed.write_text(ann.allowed('namespaces="file"'))
    signed(repo, ann, {"a.yaml": job_text("a", "2")})
    refusal(source)


def test_key_of_openpgp_that_expired_or_was_revoked(
    repo: Repo, source: TreeSpecSource, allowed: Path, home: Path
) -> None:
    old = OpenPgpSigner(home, "old", at="20200101T000000", lasts="1d")
    allowed.write_text(old.allowed())
    signed(repo, old, {"a.yaml": job_text("a")})
    assert "which has expired" in refusal(source)
    lost = OpenPgpSigner(home, "lost")
    allowed.write_text(lost.allowed())
    commit = signed(repo, lost, {"a.yaml": job_text("a", "2")})
    assert taken(source) == commit
    signed(repo, lost, {"a.yaml": job_text("a", "3")})
    lost.revoke()
    allowed.write_text(lost.allowed())
    assert "which was revoked" in refusal(source)


def test_keyring_of_the_user_does_not_count(
    repo: Repo,
    allowed: Path,
    ann: SshSigner,
    bob: OpenPgpSigner,
    home: Path,
    tmp_path: Path,
    clock: ManualClock,
) -> None:
    """Nor do git settings of the user that name other signers."""
    allowed.write_text(ann.allowed())
    signed(repo, bob, {"a.yaml": job_text("a")})
    (home / ".gitconfig").write_text("[gpg]\n\tprogram = true\n")
    surroundings = ENVIRONMENT | {"HOME": str(home), "GNUPGHOME": str(home)}
    settings = GitSettings(url=str(repo.path), allowed_signers=allowed)
    tree = GitTree(settings, tmp_path / "data", clock, environment=surroundings)
    with pytest.raises(SourceUnavailable, match="not in"):
        tree.snapshot(None)


def test_file_that_names_nobody_or_is_none(
    repo: Repo, source: TreeSpecSource, allowed: Path, ann: SshSigner, bob: OpenPgpSigner
) -> None:
    """Nothing is taken; which file and line is told, and what a line looks like; no private key is shown."""
    signed(repo, ann, {"a.yaml": job_text("a")})
    assert f"--git-allowed-signers: {allowed} cannot be read: No such file" in refusal(source)
    broken = bob.allowed().replace("mDM", "AAA")
    for content, message in {
        "": "names nobody",
        "# nobody yet\n": "names nobody",
        f"{ann.allowed()}\nbla\n": "line 3 is none of ssh's allowed signers",
        f"{ann.public} ann\n": "line 1 begins with a key; write before it who signs",
        "ann@example.org ssh-ed25519 AAA!\n": "line 1 is none",
        "ann@example.org ssh-ed25519\n": "line 1 is none",
        ann.private: "has a private key",
        f"{ann.allowed()}{broken}": "line 2 begins a block of public keys",
        "#" * (1024**2 + 1): "larger than 1 MiB",
    }.items():
        allowed.write_text(content)
        told = refusal(source)
        assert message in told
        assert "OPENSSH" not in told
    allowed.write_bytes(bob.binary())
    assert "gpg --armor --export" in refusal(source)
    allowed.write_text(ann.allowed())
    assert taken(source)


def test_key_that_is_there_twice_is_refused(
    repo: Repo, source: TreeSpecSource, allowed: Path, home: Path
) -> None:
    """Else nobody could tell whether the revocation in the second one counts."""
    dee = OpenPgpSigner(home, "dee")
    whole = dee.allowed()
    dee.revoke()
    signed(repo, SshSigner(allowed.parent), {"a.yaml": job_text("a")})
    allowed.write_text(f"{whole}{dee.allowed()}")
    told = refusal(source)
    assert f"line {whole.count(chr(10)) + 1} begins a block of public keys that has the key " in told
    assert "as the one of line 1; leave one" in told


def test_gpg_is_not_installed(
    repo: Repo, allowed: Path, bob: OpenPgpSigner, tmp_path: Path, clock: ManualClock
) -> None:
    allowed.write_text(bob.allowed())
    signed(repo, bob, {"a.yaml": job_text("a")})
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("git", "sh"):
        (programs / name).symlink_to(os.fspath(shutil.which(name) or ""))
    settings = GitSettings(url=str(repo.path), allowed_signers=allowed)
    tree = GitTree(settings, tmp_path / "data", clock, environment={"PATH": str(programs)})
    with pytest.raises(SourceUnavailable, match="the gpg program is not installed; install gpg"):
        tree.snapshot(None)
