"""Every option of every command: by flag, by environment, from the options file, in that order."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner

from cli.main import SECTIONS, Entry, _load, cli
from cli.settings import GlobalOption, global_options, settings

COMMANDS: dict[str, Entry] = {name: entry for entries in SECTIONS.values() for name, entry in entries.items()}
SAMPLES = {
    "duration": ("7s", "9s", "11s"),
    "integer": ("7", "9", "11"),
    "integer range": ("7", "9", "11"),
    "label": ("a=b", "c=d", "e=f"),
    "time": ("2026-06-01T12:00:00Z", "2026-06-02T12:00:00Z", "2026-06-03T12:00:00Z"),
    "cores": ("2", "3", "4"),
    "size": ("1GiB", "2GiB", "3GiB"),
    "text": ("x1", "x2", "x3"),
    "path": ("p1", "p2", "p3"),
    "file": ("p1", "p2", "p3"),
    "directory": ("p1", "p2", "p3"),
}


def own_options() -> Iterator[Any]:
    for name, entry in COMMANDS.items():
        for option in _load(entry).params:
            if isinstance(option, click.Option) and not isinstance(option, GlobalOption):
                yield pytest.param(name, option, id=f"{name} {option.opts[-1]}")


def samples(option: click.Option) -> tuple[str, str, str]:
    """Three values that the option takes; the same thrice where it takes but one."""
    if option.is_flag:
        return ("true", "true", "true")
    if isinstance(option.type, click.Choice):
        words = [str(one) for one in option.type.choices if one != option.default] or [
            str(option.type.choices[0])
        ]
        return (words[0], words[len(words) // 2], words[-1])
    return SAMPLES[option.type.name]


class Probe:
    """Runs a command up to where it would begin, and returns what it got."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._monkeypatch, self._folder = monkeypatch, folder
        monkeypatch.chdir(folder)

    def __call__(
        self, name: str, *flags: str, env: dict[str, str] | None = None, file: object = None
    ) -> dict[str, Any]:
        command, got = _load(COMMANDS[name]), dict[str, Any]()

        def begin(*_: object, **given: Any) -> None:
            got.update(given)
            got["settings"] = settings()

        self._monkeypatch.setattr(command, "callback", begin)
        needed = ["x" for one in command.params if isinstance(one, click.Argument) and one.required]
        if isinstance(kind := next(iter(command.params)).type, click.Choice) and needed:
            needed = [str(kind.choices[0])]
        arguments = [name, *flags, *needed]
        if file is not None:
            path = self._folder / "options.yaml"
            path.write_text(yaml.safe_dump(file))
            arguments = ["--config", str(path), *arguments]
        result = CliRunner(env=env or {}).invoke(cli, arguments)
        assert result.exit_code == 0, f"{arguments}: {result.output}"
        return got


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Probe:
    return Probe(monkeypatch, tmp_path)


@pytest.mark.parametrize(("name", "option"), list(own_options()))
def test_an_option_of_a_command(probe: Probe, name: str, option: click.Option) -> None:
    """`TRUEUP_COMMAND_OPTION` and a section of the file give what the flag gives; the flag wins over both."""
    long = next(one for one in option.opts if one.startswith("--")).removeprefix("--")
    key, variable = str(option.name), f"TRUEUP_{name}_{long}".upper().replace("-", "_")
    by_flag, by_environment, by_file = samples(option)

    def flags(value: str) -> list[str]:
        return [f"--{long}"] if option.is_flag else [f"--{long}", value]

    def section(value: str) -> dict[str, Any]:
        held: object = [value] if option.multiple else True if option.is_flag else value
        return {name: {long: held}}

    wanted = {value: probe(name, *flags(value))[key] for value in (by_flag, by_environment, by_file)}
    assert wanted[by_flag] not in (None, (), option.default) or option.is_flag
    environment = {variable: by_environment}
    assert probe(name, env=environment)[key] == wanted[by_environment]
    assert probe(name, file=section(by_file))[key] == wanted[by_file]
    assert probe(name, env=environment, file=section(by_file))[key] == wanted[by_environment]
    assert probe(name, *flags(by_flag), env=environment, file=section(by_file))[key] == wanted[by_flag]


@pytest.mark.parametrize(
    "option", [one for one in global_options() if one.name != "config"], ids=lambda one: one.name
)
def test_an_option_of_all_commands(probe: Probe, option: click.Option) -> None:
    """`TRUEUP_OPTION`, the file's own keys, and a command's section of it; the flag wins, then the environment."""
    long, key = option.opts[0].removeprefix("--"), str(option.name)
    by_flag, by_environment, by_file = samples(option)
    environment = {f"TRUEUP_{long}".upper().replace("-", "_"): by_environment}

    def got(*flags: str, **given: Any) -> object:
        return getattr(probe("nodes", *flags, **given)["settings"], key)

    wanted = {value: got(f"--{long}", value) for value in (by_flag, by_environment, by_file)}
    assert got(env=environment) == wanted[by_environment]
    assert got(file={long: by_file}) == wanted[by_file]
    assert got(file={long: by_flag, "nodes": {long: by_file}}) == wanted[by_file]
    assert got(env=environment, file={long: by_file}) == wanted[by_environment]
    assert got(f"--{long}", by_flag, env=environment, file={long: by_file}) == wanted[by_flag]
