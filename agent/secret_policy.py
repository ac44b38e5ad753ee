"""Which jobs may name which secret of this node: the operator's rule, asked wherever a value would be used."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.doors import SecretMissing, Secrets
from trueup.models import secret_rules


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretPolicy:
    """*jobs* are those that may name a secret, by its name; one that is not listed is nobody's.

    None: no rule was given, and every job may name every secret of the folder that the operator named.
    """

    jobs: Mapping[str, frozenset[str]] | None = None

    def allows(self, name: str, job: str) -> bool:
        """Whether *job* may name the secret."""
        return self.jobs is None or secret_rules.may_name(self.jobs.get(name, ()), job)

    def attributes(self, names: Sequence[str]) -> dict[str, str]:
        """What placement is told of the secrets that there are."""
        if self.jobs is None:
            return {}
        return {
            secret_rules.ATTRIBUTE + name: secret_rules.told(self.jobs.get(name, frozenset()))
            for name in names
        }


class SecretsOfJob:
    """The secrets that one job may name, as `agent.doors.Secrets`."""

    def __init__(self, secrets: Secrets, policy: SecretPolicy, job: str) -> None:
        self._secrets = secrets
        self._policy = policy
        self._job = job

    def names(self) -> Sequence[str]:
        """Names of those it may name, sorted."""
        return [name for name in self._secrets.names() if self._policy.allows(name, self._job)]

    def value(self, name: str) -> str:
        """The value of one; SecretMissing also where the node's policy forbids it, and that before it is read."""
        if not self._policy.allows(name, self._job):
            raise SecretMissing(
                f"secret {name} may not be named by job {self._job} on this node: list the job under "
                f"secrets.{name} in the agent's options file"
            )
        return self._secrets.value(name)

    def decrypted(self, ciphertext: str) -> str:
        """What was encrypted with age to this node's key; who may use that, the reviewers of the specs decide."""
        return self._secrets.decrypted(ciphertext)
