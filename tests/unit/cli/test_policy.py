"""The agent's policy in the options file."""

import pytest

from cli.failures import Failed
from cli.policy import node_policies


@pytest.mark.parametrize("key", ["secrets", "artifacts"])
def test_a_rule_that_is_not_enforced_is_refused(key: str) -> None:
    """Else an operator trusts a limit that nothing keeps."""
    with pytest.raises(Failed, match=f"{key} in the options file: this release"):
        node_policies({key: {"db": ["shop"]}}, enable_process=False, allow_root=False)


def test_default_is_tight() -> None:
    """No programs of the machine, no root, no privilege, no path of the host."""
    policies = node_policies({}, enable_process=False, allow_root=False)
    assert not policies.process.enabled
    assert not policies.process.root
    assert not policies.docker.privileged
    assert policies.docker.mounts == ()
    assert policies.volumes == {}
