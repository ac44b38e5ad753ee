"""The one error of a spec source, raised in `trueup.sources` and caught by whoever reads one."""


class SourceUnavailable(Exception):
    """The source could not be read whole: an error, never an absence. The message says what to do."""
