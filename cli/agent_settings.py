"""What `trueup agent` and `trueup up` are told about a node; the policy comes from the options file.

@click.command(cls=Command)
@agent_options
def command(agent: AgentSettings) -> None: ...
"""

import dataclasses
import functools
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click

from cli.binds import agent_bind_problem
from cli.failures import USAGE, Failed
from cli.server_settings import (
    OPTION_NAMES,
    ServerSettings,
    add_server_options,
    check_pair,
    default_data,
    read_bind,
    server_settings,
)
from cli.settings import POLICY_KEYS, Settings, settings
from trueup.models.units import Bytes, Millicores, parse_cores, parse_size

DEFAULT_BIND: Final = "127.0.0.1:7431"
UP_DATA: Final = Path(".trueup")
UP_SPECS: Final = Path("specs")
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_DIR: Final = click.Path(path_type=Path, file_okay=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """One node agent's options.

    *servers* are URLs of the control plane; *cpu_millicores* and *memory_bytes* None: what the machine has, without
    what is reserved of it (None: the default). *gc_max_bytes* None: a tenth of the disk.
    *advertise* is the address others dial, empty: the agent finds it. *policy* is the part of the options file that
    says what tasks may do (`drivers`, `volumes`, `artifacts`, `secrets`), empty: the tight default.
    """

    servers: tuple[str, ...]
    name: str
    region: str
    labels: Mapping[str, str]
    cpu_millicores: Millicores | None
    memory_bytes: Bytes | None
    reserve_cpu_millicores: Millicores | None
    reserve_memory_bytes: Bytes | None
    reserve_disk_bytes: Bytes | None
    gc_max_allocs: int
    gc_max_bytes: Bytes | None
    advertise: str
    secrets: Path | None
    age_key_file: Path | None
    enable_process: bool
    policy: Mapping[str, Any] = field(default_factory=dict)
    data: Path
    bind: tuple[str, int]
    tls_ca: Path | None
    tls_cert: Path | None
    tls_key: Path | None
    insecure: bool
    token_file: Path | None
    log_level: str
    log_format: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UpSettings:
    """Control plane and agent of one machine. *agent* has no servers yet: the port is known once it listens."""

    server: ServerSettings
    agent: AgentSettings
    stop_tasks: bool


class LabelType(click.ParamType[tuple[str, str]]):
    """`key=value`."""

    name = "label"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[str, str]:
        """Splits at the first `=`; a usage error without one."""
        if isinstance(value, tuple):
            return value
        key, separator, held = str(value).partition("=")
        if not separator or not key:
            self.fail(f"{value!r} is no label; write key=value", param, ctx)
        return key, held


class _Read(click.ParamType[Any]):
    """A value as specs write it."""

    def __init__(self, name: str, read: Callable[[str], object]) -> None:
        self.name = name
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """Reads the text; a usage error with the accepted forms if it is none."""
        if not isinstance(value, str):
            return value
        try:
            return self._read(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


_CORES: Final = _Read("cores", lambda text: parse_cores(float(text)))
_NODE_OPTIONS: Final[tuple[Callable[[Any], Any], ...]] = (
    click.option(
        "--name", metavar="N", help="The node's name, unique in the cluster.  [default: the hostname]"
    ),
    click.option("--region", default="global", show_default=True, help="Where the node is."),
    click.option(
        "--label",
        multiple=True,
        type=LabelType(),
        metavar="K=V",
        help="A label that constraints can name; may be given again.",
    ),
    click.option(
        "--cpu",
        type=_CORES,
        metavar="CORES",
        help="How many cores tasks get.  [default: the machine's, less --reserve-cpu]",
    ),
    click.option(
        "--memory",
        type=_Read("size", parse_size),
        metavar="SIZE",
        help="How much memory tasks get, like 8GiB.  [default: the machine's, less --reserve-memory]",
    ),
    click.option(
        "--reserve-cpu",
        type=_CORES,
        metavar="CORES",
        help="How many cores of the machine no task is placed on.  [default: 0]",
    ),
    click.option(
        "--reserve-memory",
        type=_Read("size", parse_size),
        metavar="SIZE",
        help="How much memory of the machine no task is placed on.  [default: 5 %, at most 512MiB]",
    ),
    click.option(
        "--reserve-disk",
        type=_Read("size", parse_size),
        metavar="SIZE",
        help="How much of the data folder's disk is kept free: with less, nothing new is placed here.  "
        "[default: 5 %, at most 1GiB]",
    ),
    click.option(
        "--gc-max-allocs",
        type=click.IntRange(min=0),
        default=500,
        show_default=True,
        metavar="N",
        help="Of how many ended allocations folders and output stay at most.",
    ),
    click.option(
        "--gc-max-size",
        type=_Read("size", parse_size),
        metavar="SIZE",
        help="How much room these may take.  [default: a tenth of the disk]",
    ),
    click.option(
        "--advertise", default="", metavar="HOST", help="The address under which others reach this node."
    ),
    click.option(
        "--secrets", type=_DIR, metavar="DIR", help="A folder with the secrets tasks may use, one a file."
    ),
    click.option(
        "--age-key-file",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="The node's key for secrets that are encrypted with age, made if absent.  [default: age.key in the "
        "agent's data folder]",
    ),
)
_AGENT_OPTIONS: Final[tuple[Callable[[Any], Any], ...]] = (
    click.option(
        "--server",
        multiple=True,
        metavar="URL",
        help="The control plane; several are tried in turn.  [default: --address]",
    ),
    *_NODE_OPTIONS,
    click.option("--enable-process", is_flag=True, help="Let jobs run programs of this machine."),
    click.option("--insecure", is_flag=True, help="Listen beyond this machine without TLS."),
)


def agent_options(function: Callable[..., None]) -> Callable[..., None]:
    """Adds the options of `trueup agent` to a command, which gets `agent=AgentSettings`."""

    @functools.wraps(function)
    def call(**given: Any) -> None:  # noqa: ANN401 - as click hands them over
        function(agent=agent_settings(settings(), given))

    made: Callable[..., None] = call
    for option in reversed(_AGENT_OPTIONS):
        made = option(made)
    return made


def up_options(function: Callable[..., None]) -> Callable[..., None]:
    """Adds the options of `trueup up` to a command, which gets `up=UpSettings`."""

    @functools.wraps(function)
    def call(**given: Any) -> None:  # noqa: ANN401 - as click hands them over
        function(up=up_settings(settings(), given))

    made = add_server_options(call)
    for option in reversed(_NODE_OPTIONS):
        made = option(made)
    made = click.option(
        "--agent-bind",
        default="127.0.0.1:0",
        metavar="HOST:PORT",
        show_default=True,
        help="Where the agent listens.",
    )(made)
    made = click.option("--stop-tasks", is_flag=True, help="Stop all tasks at the end.")(made)
    return click.argument("folders", nargs=-1, metavar="[SPECS…]", type=_DIR)(made)


def agent_settings(common: Settings, own: Mapping[str, Any]) -> AgentSettings:
    """An agent's settings from the global options and its own; Failed names the option that is wrong."""
    bind = read_bind(common.bind or DEFAULT_BIND)
    check_pair(common)
    problem = agent_bind_problem(bind[0], has_tls=common.tls_cert is not None, insecure=own["insecure"])
    if problem is not None:
        raise Failed(problem, exit_code=USAGE)
    return AgentSettings(
        servers=tuple(url.rstrip("/") for url in own["server"]) or (common.address.rstrip("/"),),
        **_node(own),
        enable_process=own["enable_process"],
        policy=_policy(common),
        # Tasks have folders of their own, and shims run in them: a relative path would mean another folder there.
        data=(common.data or default_data("agent")).absolute(),
        bind=bind,
        tls_ca=common.tls_ca,
        tls_cert=common.tls_cert,
        tls_key=common.tls_key,
        insecure=own["insecure"],
        token_file=common.token_file,
        log_level=common.log_level,
        log_format=common.log_format,
    )


def up_settings(common: Settings, own: Mapping[str, Any]) -> UpSettings:
    """The settings of both, below one data folder (`./.trueup`); positional folders count as `--specs`."""
    folder = (common.data or UP_DATA).absolute()
    options = {name: own[name] for name in OPTION_NAMES}
    options["specs"] = (*own["folders"], *own["specs"])
    server = server_settings(
        _with_data(common, folder / "server"), options, data=folder / "server", default_specs=(UP_SPECS,)
    )
    bind = read_bind(own["agent_bind"])
    problem = agent_bind_problem(bind[0], has_tls=common.tls_cert is not None, insecure=own["insecure"])
    if problem is not None:
        raise Failed(problem.replace("--bind", "--agent-bind"), exit_code=USAGE)
    agent = AgentSettings(
        servers=(),
        **_node(own),
        enable_process=True,
        policy=_policy(common),
        data=folder / "agent",
        bind=bind,
        tls_ca=common.tls_ca,
        tls_cert=common.tls_cert,
        tls_key=common.tls_key,
        insecure=own["insecure"],
        token_file=server.token_file,
        log_level=common.log_level,
        log_format=common.log_format,
    )
    return UpSettings(server=server, agent=agent, stop_tasks=own["stop_tasks"])


def node_name_of_host(hostname: str) -> str:
    """A hostname as a node's name: lower-cased, other characters as `-`."""
    name = re.sub(r"[^a-z0-9-]", "-", hostname.lower())[:63].strip("-")
    return name or "node"


def _node(own: Mapping[str, Any]) -> dict[str, Any]:
    name = own["name"] or node_name_of_host(socket.gethostname())
    if _NAME.fullmatch(name) is None:
        raise Failed(
            f"--name {name!r} is no name: lower-case letters, digits and -, at most 63, no - at an end",
            exit_code=USAGE,
        )
    for kind in ("cpu", "memory"):
        if own[kind] is not None and own[f"reserve_{kind}"] is not None:
            raise Failed(
                f"--{kind} says what tasks get, and --reserve-{kind} what they do not get of the machine: give one",
                exit_code=USAGE,
            )
    return {
        "name": name,
        "region": own["region"],
        "labels": dict(own["label"]),
        "cpu_millicores": own["cpu"],
        "memory_bytes": own["memory"],
        "reserve_cpu_millicores": own["reserve_cpu"],
        "reserve_memory_bytes": own["reserve_memory"],
        "reserve_disk_bytes": own["reserve_disk"],
        "gc_max_allocs": own["gc_max_allocs"],
        "gc_max_bytes": own["gc_max_size"],
        "advertise": own["advertise"],
        "secrets": own["secrets"],
        "age_key_file": own["age_key_file"],
    }


def _policy(common: Settings) -> dict[str, Any]:
    return {key: value for key, value in common.document.items() if key in POLICY_KEYS}


def _with_data(common: Settings, data: Path) -> Settings:
    return dataclasses.replace(common, data=data)
