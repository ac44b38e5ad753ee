"""Options that every command takes, and where their values come from: flag, environment, file, default.

The file (`--config`, YAML) holds global options by their long names, a section for each command that has options
of its own (`server: {poll: 30s}`, whose entries win over the file's global ones), and the agent's policy, which is
not looked at here. A global option works before and after the command's name; the later one wins.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from cli.failures import Failed

DEFAULT_ADDRESS: Final = "http://127.0.0.1:7430"
POLICY_KEYS: Final = frozenset({"drivers", "volumes", "artifacts", "secrets"})
_META: Final = "trueup.settings"
_PATH: Final = click.Path(path_type=Path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The global options as they hold for this command.

    *flags* names those given on the command line itself; *document* is the whole `--config` file, empty without one.
    """

    address: str
    token_file: Path | None
    tls_ca: Path | None
    tls_cert: Path | None
    tls_key: Path | None
    data: Path | None
    bind: str | None
    config: Path | None
    log_level: str
    log_format: str
    color: str
    flags: frozenset[str]
    document: Mapping[str, Any]


class GlobalOption(click.Option):
    """An option of all commands: its value goes to `settings`, not to the command's function."""

    def __init__(self, name: str, *, default: str = "", **fields: Any) -> None:  # noqa: ANN401 - click's
        super().__init__(
            [f"--{name}"],
            expose_value=False,
            callback=_read_config if name == "config" else _note,
            envvar=f"TRUEUP_{name.upper().replace('-', '_')}",
            show_envvar=True,
            **fields,
        )
        self.fallback = default


def global_options() -> list[click.Option]:
    """Fresh option objects, one set for each command they are added to."""
    return [
        GlobalOption("config", type=_PATH, is_eager=True, metavar="FILE", help="Options from a YAML file."),
        GlobalOption(
            "address",
            default=DEFAULT_ADDRESS,
            metavar="URL",
            help=f"The control plane.  [default: {DEFAULT_ADDRESS}]",
        ),
        GlobalOption("token-file", type=_PATH, metavar="FILE", help="A file that holds the token to show."),
        GlobalOption(
            "tls-ca", type=_PATH, metavar="FILE", help="Certificates to trust instead of the system's."
        ),
        GlobalOption("tls-cert", type=_PATH, metavar="FILE", help="Own certificate."),
        GlobalOption("tls-key", type=_PATH, metavar="FILE", help="Key of the own certificate."),
        GlobalOption("data", type=_PATH, metavar="DIR", help="Folder of the store and of what agents keep."),
        GlobalOption("bind", metavar="HOST:PORT", help="Where to listen; port 0 picks a free one."),
        GlobalOption(
            "log-level",
            default="info",
            type=click.Choice(["debug", "info", "warning", "error"]),
            help="How much to log.  [default: info]",
        ),
        GlobalOption(
            "log-format",
            default="text",
            type=click.Choice(["text", "json"]),
            help="Form of log lines on stderr.  [default: text]",
        ),
        GlobalOption(
            "color",
            default="auto",
            type=click.Choice(["auto", "always", "never"]),
            help="Colours in the output; NO_COLOR is honoured.  [default: auto]",
        ),
    ]


def settings() -> Settings:
    """The global options of the command that runs now."""
    context = click.get_current_context()
    noted = _noted(context)
    values = {_key(option): _resolve(context, option) for option in global_options()}
    return Settings(**values, flags=frozenset(noted["flag"]), document=noted["document"])


def _read_config(context: click.Context, option: click.Parameter, value: Path | None) -> Path | None:
    """Takes the options file in before any other option is looked at; a flag's file wins over the environment's."""
    noted = _noted(context)
    kind = _KIND_OF_SOURCE.get(context.get_parameter_source(_key(option)) or ParameterSource.DEFAULT)
    if value is None or (kind != "flag" and _key(option) in noted["flag"]):
        return value
    _note(context, option, value)
    document = _load(value, context.find_root().command)
    noted["document"] = document
    if context.parent is None:
        commands = _commands(context.command)
        context.default_map = {name: _section(document, name) for name in document if name in commands}
    else:
        context.default_map = _section(document, context.info_name or "")
    return value


def _load(path: Path, root: click.Command) -> dict[str, Any]:
    """Reads an options file and checks its keys. Failed names file, line or key, and the nearest known one."""
    document = _read_yaml(path)
    commands = _commands(root)
    for key, value in document.items():
        if key not in commands:
            _check_key(path, str(key), key, [*_names(root), *commands, *POLICY_KEYS])
        elif not isinstance(value, Mapping):
            raise Failed(f"{path}: {key}: write the options of `trueup {key}` as a mapping under it")
        elif (
            isinstance(root, click.Group)
            and (command := root.get_command(click.Context(root), key)) is not None
        ):
            for inner in value:
                _check_key(path, f"{key}.{inner}", inner, _names(command))
    return document


def _commands(root: click.Command) -> list[str]:
    return root.list_commands(click.Context(root)) if isinstance(root, click.Group) else []


def _section(document: Mapping[str, Any], command: str) -> dict[str, Any]:
    """The part of an options file for one command, keyed as click looks defaults up."""
    held = document.get(command)
    return (
        {str(key).replace("-", "_"): value for key, value in held.items()}
        if isinstance(held, Mapping)
        else {}
    )


def _noted(context: click.Context) -> dict[str, Any]:
    noted: dict[str, Any] = context.meta.setdefault(
        _META, {"flag": {}, "environment": {}, "section": {}, "document": {}}
    )
    return noted


_KIND_OF_SOURCE: Final = {
    ParameterSource.COMMANDLINE: "flag",
    ParameterSource.ENVIRONMENT: "environment",
    ParameterSource.DEFAULT_MAP: "section",
}


def _note(context: click.Context, option: click.Parameter, value: object) -> object:
    kind = _KIND_OF_SOURCE.get(context.get_parameter_source(_key(option)) or ParameterSource.DEFAULT)
    if kind is not None:
        _noted(context)[kind][_key(option)] = value
    return value


def _resolve(context: click.Context, option: click.Option) -> Any:  # noqa: ANN401 - as many types as options
    noted, key = _noted(context), _key(option)
    for kind in ("flag", "environment", "section"):
        if noted[kind].get(key) is not None:
            return noted[kind][key]
    if noted["document"].get(_name(option)) is not None:
        return _from_document(context, option, noted["document"][_name(option)])
    fallback = option.fallback if isinstance(option, GlobalOption) else ""
    return fallback or None


def _from_document(context: click.Context, option: click.Option, value: object) -> Any:  # noqa: ANN401 - as above
    if isinstance(value, (Mapping, list)):
        raise Failed(f"{_name(option)} in the options file: write one value")
    try:
        return option.type_cast_value(context, str(value))
    except click.BadParameter as error:
        raise Failed(f"{_name(option)} in the options file: {error.message}") from error


def _key(option: click.Parameter) -> str:
    return option.name or ""


def _name(option: click.Parameter) -> str:
    return next(name for name in option.opts if name.startswith("--")).removeprefix("--")


def _names(command: click.Command) -> list[str]:
    return [_name(option) for option in command.params if isinstance(option, click.Option)]


def _check_key(path: Path, where: str, key: object, known: Iterable[str]) -> None:
    names = sorted(known)
    if str(key) in names:
        return
    near = difflib.get_close_matches(str(key), names, n=1)
    hint = f'; did you mean "{near[0]}"?' if near else ""
    raise Failed(f"{path}: {where}: unknown key{hint}")


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        document = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise Failed(f"--config {path} cannot be read: {error.strerror}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark is not None else str(path)
        raise Failed(f"{where}: {error.problem or 'is no YAML'}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise Failed(f"{path}: is no YAML: {error}") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise Failed(f"{path}: write a mapping of options, like `address: {DEFAULT_ADDRESS}`")
    return document
