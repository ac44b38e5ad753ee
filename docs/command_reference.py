"""The reference page of the command line, made from the parser itself."""

import inspect
from collections.abc import Iterator
from typing import Final

import click

from cli.main import SECTIONS, cli
from cli.settings import GlobalOption, global_options

_HEAD: Final = """\
# Command line

<!-- Made by `make docs` from the parser; edit the commands in `cli/` instead. -->

Results go to stdout, messages to stderr. Exit codes: 0 done; 1 failed or invalid; 2 `plan --detailed-exitcode` with
changes; 64 usage; 124 timed out; 130 interrupted. An option's value comes from, in this order: flag, environment,
the file that `--config` names, default.

## Options of all commands

They may stand before or after the command's name.

"""


def command_page() -> str:
    """The page, Markdown. ImportError where the parser names a command that does not exist."""
    root = click.Context(cli, info_name="trueup")
    return _HEAD + _table(global_options(), root) + "".join(_commands(root))


def _commands(root: click.Context) -> Iterator[str]:
    for title, entries in SECTIONS.items():
        yield f"\n## {title}\n"
        for name in entries:
            command = cli.get_command(root, name)
            if command is not None:
                yield _command(name, command, root)


def _command(name: str, command: click.Command, root: click.Context) -> str:
    context = click.Context(command, info_name=name, parent=root)
    usage = " ".join(["trueup", name, *command.collect_usage_pieces(context)])
    own = [
        option
        for option in command.params
        if isinstance(option, click.Option) and not isinstance(option, GlobalOption)
    ]
    about = inspect.cleandoc(command.help or "").replace("\b\n", "")
    return f"\n### `{usage}`\n\n{about}\n" + (f"\n{_table(own, context)}" if own else "")


def _table(options: list[click.Option], context: click.Context) -> str:
    rows = [record for option in options if (record := option.get_help_record(context)) is not None]
    return "| option | |\n| --- | --- |\n" + "".join(
        f"| `{_cell(names)}` | {_cell(about)} |\n" for names, about in rows
    )


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
