"""What to type while the git host is down: the server keeps a repository that takes commits in its place."""

import shlex
from urllib.parse import urlsplit

from cli.binds import is_loopback
from cli.views import PlaceView, RemoteView, SourceView

_INDENT = "    "


def emergency_words(source: SourceView, place: PlaceView, subject: str, address: str) -> str:
    """The commands for an edit of the document at *place*; empty while the git host can be read, or there are none.

    *address* is the control plane's: where that is another machine, its repository is reached over ssh.
    """
    hosts = [remote for remote in source.remotes if not remote.emergency]
    kept = next((remote for remote in source.remotes if remote.emergency and remote.commit), None)
    if kept is None or not hosts or any(host.state != "unreachable" for host in hosts):
        return ""
    url = shlex.quote(_clone_url(kept, address))
    commands = (
        f"git clone {url} emergency && cd emergency",
        f'"${{EDITOR:-vi}}" {shlex.quote(_file_of(source, place))}',
        f"git commit -a -m {shlex.quote(subject)} && git push",
    )
    lines = "".join(f"{_INDENT}{command}\n" for command in commands)
    return (
        f"\nThe git host cannot be read now ({hosts[0].error}).\n"
        f"Until it can, as the user the server runs as, edit and push this instead; it runs at once:\n\n{lines}\n"
        f"When the host is back: git push {shlex.quote(hosts[0].url)} HEAD\n"
    )


def _clone_url(kept: RemoteView, address: str) -> str:
    host = urlsplit(address).hostname or ""
    if not host or is_loopback(host):
        return kept.url
    return f"ssh://{f'[{host}]' if ':' in host else host}{kept.url}"


def _file_of(source: SourceView, place: PlaceView) -> str:
    """The file's path in the repository."""
    folder = source.paths[place.root] if place.root < len(source.paths) else ""
    return "/".join(part for part in (folder, place.file) if part) or "THE_FILE_OF_THE_JOB"
