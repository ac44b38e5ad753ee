"""What a container was started with (image, command, environment, mounts), and whether one found is still that. Pure.

Of one container, none of it ever changes; but another can be put in its place, with its name and its labels, by hand or
by a tool that brings newer images. So it is written into a label of its own: that survives this agent and its data.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from agent.drivers.docker_container import Container, ContainerConfig, HostConfig, Image
from trueup.models.codec import understood

ORIGIN: Final = "trueup.origin"

_SHOWN_ID: Final = len("sha256:") + 12


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """*image* is its id, the others are digests: values of the environment are nobody else's."""

    image: str
    command: str
    env: str
    mounts: str

    @property
    def label(self) -> dict[str, str]:
        """The label that says it."""
        return {ORIGIN: msgspec.json.encode(self).decode()}


def origin_of(container: Container) -> Origin:
    """What a container was made with, as the engine reports it."""
    config = container.config
    return _origin(
        container.image,
        entrypoint=config.entrypoint or (),
        command=config.cmd or (),
        env=config.env or (),
        host=container.host_config,
    )


def foreseen(request: Mapping[str, Any], image: Image) -> Origin:
    """What the engine will report of a container made by *request*: what that leaves open is the image's."""
    config = image.config or ContainerConfig()
    entrypoint, command = request.get("Entrypoint"), request.get("Cmd")
    if not entrypoint and not command:
        command = config.cmd
    if entrypoint is None:
        entrypoint = config.entrypoint
    env = list(request["Env"])
    named = {variable.partition("=")[0] for variable in env}
    env += [one for one in config.env or () if one.partition("=")[0] not in named]
    host = msgspec.convert({"Mounts": request["HostConfig"]["Mounts"]}, understood(HostConfig))
    return _origin(image.id, entrypoint=entrypoint or (), command=command or (), env=env, host=host)


def strayed(container: Container) -> str:
    """In what it is not what its label says, in words; empty where it is, or has no such label.

    Those of releases before this label have none.
    """
    try:
        written = msgspec.json.decode(container.labels.get(ORIGIN, ""), type=understood(Origin))
    except (msgspec.ValidationError, msgspec.DecodeError):
        return ""
    found = origin_of(container)
    words = []
    if found.image != written.image:
        words.append(f"image {found.image[:_SHOWN_ID]} in place of {written.image[:_SHOWN_ID]}")
    parts = ("command", "env", "mounts")
    words += [f"other {part}" for part in parts if getattr(found, part) != getattr(written, part)]
    return ", ".join(words)


def _origin(
    image: str, *, entrypoint: Sequence[str], command: Sequence[str], env: Sequence[str], host: HostConfig
) -> Origin:
    mounts = sorted((one.type, one.source, one.target, one.read_only) for one in host.mounts or ())
    others = (sorted(host.binds or ()), sorted(host.volumes_from or ()), sorted((host.tmpfs or {}).items()))
    return Origin(
        image=image,
        command=_digest([list(entrypoint), list(command)]),
        env=_digest(sorted(env)),
        mounts=_digest([mounts, *others]),
    )


def _digest(value: object) -> str:
    return hashlib.sha256(msgspec.json.encode(value)).hexdigest()[:16]
