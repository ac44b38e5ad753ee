"""The agent's policy in the options file."""

import pytest

from cli.failures import Failed
from cli.policy import node_policies
from trueup.models.artifacts import ArtifactPolicy


def test_a_rule_that_is_not_enforced_is_refused() -> None:
    """Else an operator trusts a limit that nothing keeps."""
    with pytest.raises(Failed, match="secrets in the options file: this release"):
        node_policies({"secrets": {"db": ["shop"]}}, enable_process=False, allow_root=False)


def test_default_is_tight() -> None:
    """No programs of the machine, no root, no privilege, no path of the host."""
    policies = node_policies({}, enable_process=False, allow_root=False)
    assert not policies.process.enabled
    assert not policies.process.root
    assert not policies.docker.privileged
    assert policies.docker.mounts == ()
    assert policies.volumes == {}
    assert policies.artifacts == ArtifactPolicy(hosts=None, paths=())


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
