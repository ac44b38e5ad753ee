"""What `trueup server` and `trueup up` are told: flags, environment, options file, defaults, checked once.

A command takes its options by a decorator and gets one object:

    @click.command(cls=Command)
    @server_options
    def command(server: ServerSettings) -> None: ...
"""

import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from cli.binds import parse_bind, server_bind_problem
from cli.failures import USAGE, Failed
from cli.options import DURATION
from cli.settings import Settings, settings
from trueup.models.units import Duration

DEFAULT_BIND: Final = "127.0.0.1:7430"
_FILE: Final = click.Path(path_type=Path, dir_okay=False)
_DIR: Final = click.Path(path_type=Path, file_okay=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class GitSettings:
    """Remotes of one history, and how to reach them. *paths* are folders of the tree; empty: all of it."""

    urls: tuple[str, ...]
    ref: str
    paths: tuple[str, ...]
    poll: Duration
    token_file: Path | None
    ssh_key: Path | None
    known_hosts: Path | None
    ca: Path | None
    allowed_signers: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """The control plane's options. Either *specs* (folders to watch) or *git* is there.

    *token_file* holds the cluster token and is made if absent; *store* is a URL of SQLAlchemy's form. TLS files come
    as a pair or not at all. *bind* was checked: beyond loopback it has TLS and a read token, or was told to go
    without.
    """

    specs: tuple[Path, ...]
    git: GitSettings | None
    removal_settle: Duration
    atomic: bool
    data: Path
    store: str
    bind: tuple[str, int]
    tls_cert: Path | None
    tls_key: Path | None
    insecure: bool
    token_file: Path
    read_token_file: Path | None
    public_read: bool
    allowed_hosts: tuple[str, ...]
    node_timeout: Duration
    notify_secret_file: Path | None
    secrets: Path | None
    notification_hosts: tuple[str, ...]
    log_level: str
    log_format: str


_OPTIONS: Final[tuple[Callable[[Any], Any], ...]] = (
    click.option(
        "--specs",
        multiple=True,
        type=_DIR,
        metavar="DIR",
        help="Watch this folder of specs; several make one tree.",
    ),
    click.option(
        "--git",
        multiple=True,
        metavar="URL",
        help="Follow this repository: https, ssh or a local path; several are remotes of one history.",
    ),
    click.option(
        "--ref", default="main", show_default=True, metavar="REF", help="The branch or tag to follow."
    ),
    click.option(
        "--path", multiple=True, metavar="DIR", help="Only this folder of the repository; may be given again."
    ),
    click.option(
        "--poll", type=DURATION, default="15s", show_default=True, help="How often to ask a remote."
    ),
    click.option("--git-token-file", type=_FILE, metavar="FILE", help="A file with the token for https."),
    click.option("--git-ssh-key", type=_FILE, metavar="FILE", help="The private key for ssh."),
    click.option("--git-known-hosts", type=_FILE, metavar="FILE", help="Host keys to trust for ssh."),
    click.option("--git-ca", type=_FILE, metavar="FILE", help="Certificates to trust for https."),
    click.option(
        "--git-allowed-signers",
        type=_FILE,
        metavar="FILE",
        help="Take only commits that someone in this file signed, with a key of ssh or OpenPGP.",
    ),
    click.option(
        "--removal-settle",
        type=DURATION,
        default="2s",
        show_default=True,
        help="How long a document must be absent from a folder before its job is removed.",
    ),
    click.option("--atomic", is_flag=True, help="Apply nothing of a revision that has any invalid document."),
    click.option(
        "--store",
        metavar="URL",
        help="Where the state is kept: sqlite:///FILE.  [default: trueup.db in --data]",
    ),
    click.option(
        "--read-token-file", type=_FILE, metavar="FILE", help="A file with the token that readers must show."
    ),
    click.option("--public-read", is_flag=True, help="Let everyone read who can reach it."),
    click.option(
        "--allowed-host",
        multiple=True,
        metavar="NAME",
        help="A name under which readers may ask without a token.",
    ),
    click.option("--insecure", is_flag=True, help="Listen beyond this machine without TLS."),
    click.option(
        "--node-timeout",
        type=DURATION,
        default="10s",
        show_default=True,
        help="How long a node may be silent before it is down.",
    ),
    click.option(
        "--notify-secret-file",
        type=_FILE,
        metavar="FILE",
        help="A file with the secret of the forge's webhook: with it, POST /notify makes the next poll due.",
    ),
    click.option(
        "--notification-host",
        multiple=True,
        metavar="HOST[:PORT]",
        help="A host that webhooks of the Cluster document may go to; may be given again. Without it none goes out.",
    ),
)
_SECRETS: Final = click.option(
    "--secrets", type=_DIR, metavar="DIR", help="A folder with the secrets of webhooks, one a file."
)


def server_options(function: Callable[..., None]) -> Callable[..., None]:
    """Adds the options of `trueup server` to a command, which gets `server=ServerSettings`."""

    @functools.wraps(function)
    def call(**given: Any) -> None:  # noqa: ANN401 - as click hands them over
        own, rest = _split(given)
        function(server=server_settings(settings(), own, data=default_data("server")), **rest)

    return add_server_options(_SECRETS(call))


def add_server_options(call: Callable[..., None]) -> Callable[..., None]:
    """Adds the options alone; their values come as keyword arguments named in `OPTION_NAMES`."""
    for option in reversed(_OPTIONS):
        call = option(call)
    return call


OPTION_NAMES: Final = frozenset(
    {
        "specs",
        "git",
        "ref",
        "path",
        "poll",
        "git_token_file",
        "git_ssh_key",
        "git_known_hosts",
        "git_ca",
        "git_allowed_signers",
        "removal_settle",
        "atomic",
        "store",
        "read_token_file",
        "public_read",
        "allowed_host",
        "insecure",
        "node_timeout",
        "notify_secret_file",
        "secrets",
        "notification_host",
    }
)


def _split(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    own = {name: value for name, value in given.items() if name in OPTION_NAMES}
    return own, {name: value for name, value in given.items() if name not in OPTION_NAMES}


def server_settings(
    common: Settings, own: Mapping[str, Any], *, data: Path, default_specs: tuple[Path, ...] = ()
) -> ServerSettings:
    """The control plane's settings from the global options and its own; Failed names the option that is wrong.

    *data* is the folder without `--data`; *default_specs* are watched when no source is named.
    """
    folder = common.data or data
    specs, git = tuple(own["specs"]), tuple(own["git"])
    if specs and git:
        raise Failed("--specs and --git exclude each other: specs come from one source", exit_code=USAGE)
    if not specs and not git:
        specs = default_specs
    if not specs and not git:
        raise Failed("say where the specs are: --specs DIR, or --git URL", exit_code=USAGE)
    if not git and own["path"]:
        raise Failed("--path goes with --git; with folders, name them by --specs", exit_code=USAGE)
    bind = read_bind(common.bind or DEFAULT_BIND)
    check_pair(common)
    problem = server_bind_problem(
        bind[0],
        has_tls=common.tls_cert is not None,
        has_read_token=own["read_token_file"] is not None,
        insecure=own["insecure"],
        public_read=own["public_read"],
    )
    if problem is not None:
        raise Failed(problem, exit_code=USAGE)
    return ServerSettings(
        specs=specs,
        git=_git(own, git) if git else None,
        removal_settle=own["removal_settle"],
        atomic=own["atomic"],
        data=folder,
        store=own["store"] or f"sqlite:///{folder.absolute() / 'trueup.db'}",
        bind=bind,
        tls_cert=common.tls_cert,
        tls_key=common.tls_key,
        insecure=own["insecure"],
        token_file=common.token_file or folder / "cluster-token",
        read_token_file=own["read_token_file"],
        public_read=own["public_read"],
        allowed_hosts=tuple(own["allowed_host"]),
        node_timeout=own["node_timeout"],
        notify_secret_file=own["notify_secret_file"],
        secrets=own["secrets"],
        notification_hosts=tuple(own["notification_host"]),
        log_level=common.log_level,
        log_format=common.log_format,
    )


def _git(own: Mapping[str, Any], urls: tuple[str, ...]) -> GitSettings:
    return GitSettings(
        urls=urls,
        ref=own["ref"],
        paths=tuple(own["path"]),
        poll=own["poll"],
        token_file=own["git_token_file"],
        ssh_key=own["git_ssh_key"],
        known_hosts=own["git_known_hosts"],
        ca=own["git_ca"],
        allowed_signers=own["git_allowed_signers"],
    )


def read_bind(text: str) -> tuple[str, int]:
    """`parse_bind`, its error as a usage error."""
    try:
        return parse_bind(text)
    except ValueError as error:
        raise Failed(f"--bind {error}", exit_code=USAGE) from error


def check_pair(common: Settings) -> None:
    """A certificate and its key come together."""
    if (common.tls_cert is None) != (common.tls_key is None):
        raise Failed("--tls-cert and --tls-key go together", exit_code=USAGE)


def default_data(room: str, environment: Mapping[str, str] = os.environ) -> Path:
    """`/var/lib/trueup/ROOM` as root, else a folder under `$XDG_STATE_HOME`."""
    if os.geteuid() == 0:
        return Path("/var/lib/trueup") / room
    home = environment.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(home) / "trueup" / room
