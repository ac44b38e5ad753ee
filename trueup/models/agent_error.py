"""The one error of pushes to agents, which those who push and those who decide share."""


class AgentUnreachable(Exception):
    """A push did not arrive, or its answer did not: the heartbeat mends it."""
