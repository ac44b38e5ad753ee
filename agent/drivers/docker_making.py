"""Makes a container whose labels say what it is made with: they have to be told before the engine says it."""

from collections.abc import Mapping
from typing import Any, Final

from agent.drivers.docker_container import Container
from agent.drivers.docker_engine import Engine
from agent.drivers.docker_origin import foreseen, origin_of

_TRIES: Final = 3


def make_container(engine: Engine, request: Mapping[str, Any], name: str) -> Container:
    """Makes it, not yet started. NotThere where its image is not; EngineRefused 409 where the name is in use."""
    origin = foreseen(request, engine.inspect_image(request["Image"]))
    for _ in range(_TRIES):
        labelled = {**request, "Labels": {**request["Labels"], **origin.label}}
        made = engine.inspect(engine.create(labelled, name))
        if origin_of(made) == origin:
            return made
        # A tag that has gone on to another image meanwhile, or a rule of this engine's own: its word counts.
        origin = origin_of(made)
        engine.remove(made.id, force=True)
    # An engine that makes another of it each time: nothing can be compared.
    return engine.inspect(engine.create(request, name))
