"""The command class, and options that several commands share."""

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import click

from cli.settings import GlobalOption, global_options
from trueup.models.units import Duration, parse_duration

F = TypeVar("F", bound=Callable[..., Any])

LIST_FORMS: Final = ("table", "wide", "json", "yaml", "name")


class Command(click.Command):
    """A command that also takes the global options, before or after its name."""

    def __init__(self, *args: Any, **fields: Any) -> None:  # noqa: ANN401 - click's signature
        super().__init__(*args, **fields)
        self.params.extend(global_options())

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the command's own options; the global ones by name, as `trueup --help` explains them."""
        own = [one for one in self.get_params(ctx) if not isinstance(one, (GlobalOption, click.Argument))]
        rows = [row for option in own if (row := option.get_help_record(ctx)) is not None]
        with formatter.section("Options"):
            formatter.write_dl(rows)
        names = ", ".join(option.opts[0] for option in global_options())
        with formatter.section("Options of all commands (see trueup --help)"):
            formatter.write_text(names)


class DurationType(click.ParamType[Duration]):
    """A span as specs write it: `30s`, `1h30m`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Duration:  # noqa: ANN401
        """Reads the text; a usage error with the accepted forms if it is none."""
        if isinstance(value, Duration):
            return value
        try:
            return parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


DURATION: Final = DurationType()


def output_option(forms: Sequence[str] = LIST_FORMS) -> Callable[[F], F]:
    """`-o`: the form of the result; the first of *forms* is the default."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(forms),
        default=forms[0],
        show_default=True,
        help="Form of the result.",
    )


def watch_option() -> Callable[[F], F]:
    """`--watch`: show the result again whenever something changes."""
    return click.option(
        "-w", "--watch", is_flag=True, help="Stay, and show the result again on every change."
    )
