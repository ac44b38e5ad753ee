"""What a webhook was told of and has not yet been told the end of: kept in the store, so that no restart repeats it."""

from datetime import datetime

from trueup.models.codec import Model


class Told(Model, frozen=True, kw_only=True):
    """*hook* names the webhook; *cause* and *subject* (a job, node, file or held loss) what it was told of.

    *id* is the same in what tells the beginning and the end.
    """

    hook: str
    cause: str
    subject: str = ""
    id: str
    job: str = ""
    node: str = ""
    message: str = ""
    since: datetime
