"""What the metastore refuses, each in one sentence for people: what happened, where, what to do."""


class StoreError(Exception):
    """The store cannot be opened, read or written."""


class NameConflict(StoreError):
    """A transaction wanted two allocations under one name: nothing of it was written."""


class UnknownNode(Exception):
    """The node's secret is not one we gave out: it joins again with the cluster token (API: 401)."""


class NameTaken(Exception):
    """Another living node has that id or name (API: 409)."""
