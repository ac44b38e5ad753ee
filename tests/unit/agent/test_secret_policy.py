"""Which jobs may name which secret, asked on the agent."""

import pytest

from agent.doors import SecretMissing
from agent.secret_policy import SecretPolicy, SecretsOfJob
from tests.unit.agent.world import FixedSecrets

RULES = SecretPolicy(jobs={"db": frozenset({"web", "api"}), "hook": frozenset({"*"})})
SECRETS = FixedSecrets({"db": "hunter2", "hook": "x", "unlisted": "y"})


def test_a_job_has_what_it_may_name() -> None:
    mine = SecretsOfJob(SECRETS, RULES, "web")
    assert mine.value("db") == "hunter2"
    assert mine.names() == ["db", "hook"]


@pytest.mark.parametrize(("job", "name"), [("batch", "db"), ("web", "unlisted"), ("web", "none")])
def test_what_a_job_may_not_name_is_not_even_looked_for(job: str, name: str) -> None:
    """What is said names the line to change, and says nothing of whether there is such a secret."""
    with pytest.raises(SecretMissing, match=f"secret {name} may not be named by job {job} .* secrets.{name}"):
        SecretsOfJob(SECRETS, RULES, job).value(name)


def test_without_rules_every_job_may_name_every_secret() -> None:
    assert SecretsOfJob(SECRETS, SecretPolicy(), "batch").value("unlisted") == "y"
    assert SecretPolicy().attributes(["db"]) == {}


def test_what_placement_is_told() -> None:
    """For each secret that there is; empty: no job may name it."""
    assert RULES.attributes(["db", "unlisted"]) == {"secrets.db": "api,web", "secrets.unlisted": ""}
