"""Results to stdout, in the form asked for: text for people, JSON or YAML for programs, bare names for pipes."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import click

from cli.blocks import Block, Line
from cli.clean import UNSAFE_IN_JSON, clean, escape_in_json
from cli.client import Gone, Unreachable
from cli.failures import warn
from cli.plain_text import plain_text
from cli.settings import settings

RETRY_SECONDS: Final = 1.0
REDRAW_SECONDS: Final = 0.2
"""The shortest time between two pictures of a watch: states can change many times a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a command found: *plain* for machines, *names* as other commands take them, *blocks* for people.

    *index* is the store's change counter it is of, from which a watch goes on.
    """

    plain: Any
    names: Sequence[str] = ()
    blocks: Callable[[bool], Iterable[Block]]
    index: int = 0


def show(result: Result, output: str) -> None:
    """Prints *result* once."""
    match output:
        case "json" | "yaml":
            print_plain(result.plain, output)
        case "name":
            for name in result.names:
                click.echo(clean(name))
        case _:
            print_blocks(result.blocks(output == "wide"))


def watch(read: Callable[[int], Result], output: str) -> None:
    """Prints what *read* returns, now and on every change, until interrupted.

    *read* takes the index to be newer than (0: answer at once) and may block for some seconds. A control plane
    that goes away is waited for. On a terminal the picture is redrawn in place.
    """
    if output in {"table", "text", "wide"} and sys.stdout.isatty():
        _watch_on_screen(read, wide=output == "wide")
        return
    printed = ""
    for result in _newer(read):
        text = _as_text(result, output)
        if text != printed:
            click.echo(text, nl=False)
            printed = text


def print_blocks(blocks: Iterable[Block]) -> None:
    """Prints blocks: tables fitted to a terminal, all else plain and aligned."""
    blocks = list(blocks)
    if sys.stdout.isatty() and not all(isinstance(block, Line) for block in blocks):
        from cli.rich_text import print_fitted

        print_fitted(blocks, color=use_color())
        return
    click.echo(plain_text(blocks, color=use_color()), nl=False, color=True)


def print_plain(value: object, output: str) -> None:
    """Prints data for machines, as `json` or `yaml`."""
    click.echo(json_text(value) if output == "json" else yaml_text(value), nl=output == "json")


def json_text(value: object, *, indent: int | None = 2) -> str:
    """JSON that is readable, and safe on a terminal."""
    return escape_in_json(json.dumps(value, indent=indent, ensure_ascii=False, default=str))


def yaml_text(value: object) -> str:
    """YAML in the order of the data, safe on a terminal."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes strings with unsafe characters in double quotes, where these can be escaped."""

    def represent(dumper: Dumper, text: str) -> yaml.ScalarNode:
        style = '"' if UNSAFE_IN_JSON.search(text) else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, represent)
    return escape_in_json(yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=110))


def use_color() -> bool:
    """Whether stdout gets colours: `--color`, then NO_COLOR and a dumb terminal, then whether it is a terminal."""
    wanted = settings().color
    if wanted != "auto":
        return wanted == "always"
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _as_text(result: Result, output: str) -> str:
    match output:
        case "json":
            return json_text(result.plain, indent=None) + "\n"
        case "yaml":
            return "---\n" + yaml_text(result.plain)
        case "name":
            return "".join(f"{clean(name)}\n" for name in result.names)
    return plain_text(result.blocks(output == "wide"), color=use_color()) + "\n"


def _newer(read: Callable[[int], Result]) -> Iterator[Result]:
    """Results, each newer than the last; the first must succeed, later failures are told once and waited out."""
    result = read(0)
    told = False
    while True:
        yield result
        drawn_at = time.monotonic()
        while True:
            try:
                result = read(result.index)
            except Gone:
                result = read(0)
            except Unreachable as error:
                if not told:
                    warn(f"{error.message}; trying again")
                told = True
                time.sleep(RETRY_SECONDS)
                continue
            told = False
            break
        time.sleep(max(0.0, REDRAW_SECONDS - (time.monotonic() - drawn_at)))


def _watch_on_screen(read: Callable[[int], Result], *, wide: bool) -> None:
    from rich.live import Live

    from cli.rich_text import make_console, renderable

    console = make_console(color=use_color())
    results = _newer(read)
    first = next(results)
    with Live(renderable(first.blocks(wide)), console=console, screen=True, auto_refresh=False) as live:
        for result in results:
            live.update(renderable(result.blocks(wide)), refresh=True)
