"""What the metastore refuses, each in one sentence for people: what happened, where, what to do."""


class StoreError(Exception):
    """The store cannot be opened, read or written."""


class StoreUnavailable(StoreError):
    """Nothing can be written now (disk full, folder read-only, file damaged): nothing of the transaction was kept.

    The same may work later; what is in memory and in the file is as it was before.
    """


class FolderTaken(StoreError):
    """Another server has the data folder."""


class NameConflict(StoreError):
    """A transaction wanted two allocations under one name: nothing of it was written."""


class HistoryCut(Exception):
    """Entries of a history that were asked for are gone: retention dropped them."""


class UnknownNode(Exception):
    """The node's secret is not one we gave out: it joins again with the cluster token (API: 401)."""


class NameTaken(Exception):
    """Another living node has that id or name (API: 409).

    *again_seconds*: when it pays to ask again, where the other may be this very machine's before its data were lost.
    """

    def __init__(self, message: str, *, again_seconds: float | None = None) -> None:
        super().__init__(message)
        self.again_seconds = again_seconds
