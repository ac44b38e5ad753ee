"""The agent's policy in the options file."""

import pytest

from agent.secret_policy import SecretPolicy
from cli.failures import Failed
from cli.policy import node_policies
from trueup.models.artifacts import ArtifactPolicy


def test_default_is_tight() -> None:
    """No programs of the machine, no root, no privilege, no path of the host."""
    policies = node_policies({}, enable_process=False, allow_root=False)
    assert not policies.process.enabled
    assert not policies.process.root
    assert not policies.docker.privileged
    assert policies.docker.mounts == ()
    assert policies.volumes == {}
    assert policies.artifacts == ArtifactPolicy(hosts=None, paths=())


@pytest.mark.parametrize("user", ["root", "0", 0])
def test_root_by_name_or_number(user: object) -> None:
    document = {"drivers": {"process": {"users": [user, 33]}}}
    policy = node_policies(document, enable_process=True, allow_root=False).process
    assert policy.root
    assert policy.users == {"33"}


def secrets_of(held: object) -> SecretPolicy:
    return node_policies({"secrets": held}, enable_process=False, allow_root=False).secrets


def test_which_jobs_may_name_which_secret() -> None:
    """Without a rule all of them; with one, what is not listed is nobody's."""
    for held in ({}, {"db": ["web", "api"], "hook": ["*"], "old": []}):
        policy = secrets_of(held)
        assert policy.allows("db", "web") == policy.allows("db", "api") == ("db" in held)
        assert policy.allows("hook", "anything") == ("hook" in held)
        assert not policy.allows("db", "batch")
        assert not policy.allows("old", "web")
        assert not policy.allows("unlisted", "web")
    assert secrets_of(None).allows("unlisted", "web")


@pytest.mark.parametrize(
    "held", ["db", ["db"], {"db": "web"}, {"db": ["we*"]}, {"db": ["a,b"]}, {"db": [""]}]
)
def test_a_rule_for_secrets_that_would_not_be_kept_is_refused(held: object) -> None:
    with pytest.raises(Failed, match=r"secrets.* in the options file: "):
        secrets_of(held)


def artifacts_of(held: object) -> ArtifactPolicy:
    return node_policies({"artifacts": held}, enable_process=False, allow_root=False).artifacts


def test_where_artifacts_may_come_from() -> None:
    listed = ["example.org", "*.example.org", "build:8443", "[::1]:80", "10.0.0.1", "*"]
    assert artifacts_of({"hosts": listed, "paths": ["/srv/artifacts"]}) == ArtifactPolicy(
        hosts=tuple(listed), paths=("/srv/artifacts",)
    )
    assert artifacts_of({"hosts": []}).hosts == ()
    assert artifacts_of({"paths": ["/srv"]}).hosts is None


@pytest.mark.parametrize(
    "held",
    [
        {"host": ["x"]},
        {"hosts": "example.org"},
        {"hosts": ["https://example.org"]},
        {"hosts": ["exa*mple.org"]},
        {"hosts": ["a,b"]},
        {"hosts": [""]},
        {"paths": ["srv"]},
        {"paths": ["/srv/../etc"]},
        {"paths": "/srv"},
        ["example.org"],
    ],
)
def test_a_policy_of_artifacts_that_would_not_be_kept_is_refused(held: object) -> None:
    with pytest.raises(Failed, match=r"artifacts.* in the options file: "):
        artifacts_of(held)
