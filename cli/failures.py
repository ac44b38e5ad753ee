"""How a command ends when it does not do what was asked: one clear line on stderr and the contract's exit code."""

from collections.abc import Sequence
from typing import IO, Any, Final

import click

from cli.clean import clean_lines

FAILED: Final = 1
CHANGES: Final = 2
USAGE: Final = 64
TIMED_OUT: Final = 124
INTERRUPTED: Final = 130


class Failed(click.ClickException):
    """The command could not do it; *message* says what is wrong and what to do."""

    def __init__(self, message: str, *, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.code = exit_code

    def show(self, file: IO[Any] | None = None) -> None:
        """Prints the message to stderr, safe for a terminal."""
        say(f"Error: {self.format_message()}", file=file)


class TimedOut(Failed):
    """What was waited for did not come in time."""

    def __init__(self, message: str) -> None:
        super().__init__(message, exit_code=TIMED_OUT)


def say(message: str, *, file: IO[Any] | None = None) -> None:
    """Prints a message for people to stderr, with nothing in it that a terminal would obey."""
    click.echo(clean_lines(message), file=file, err=True)


def warn(message: str) -> None:
    """Prints a warning to stderr."""
    say(f"Warning: {message}")


def warn_of_stuck(names: Sequence[str]) -> None:
    """Says what did not end in time, if anything."""
    if names:
        warn(f"did not end in time: {', '.join(names)}")
