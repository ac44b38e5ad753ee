"""Which secrets of a node a task names, and what it has encrypted with age. Pure."""

from collections.abc import Iterator, Mapping

from trueup.models.codec import to_json, to_plain
from trueup.models.job import SecretValue, Task, TaskFile
from trueup.models.variables import SECRET_PREFIX, split_variables


def secrets_of_task(task: Task) -> frozenset[str]:
    """The names of all secrets that *task* uses, wherever it names them."""
    texts = [one.source for one in task.artifacts]
    found: set[str] = set()
    for value in task.env.values():
        if isinstance(value, SecretValue):
            found.update({value.secret} - {""})
        else:
            texts.append(value)
    for file in task.files:
        found |= secrets_of_file(file)
    if b"secret" in to_json(task.config):
        config = to_plain(task.config)
        texts += _texts_in(config)
        found.update(_named_in(config, "secret"))
    return frozenset(found.union(*map(_secrets_in, texts)))


def secrets_of_file(file: TaskFile) -> frozenset[str]:
    """Those whose values are in one file."""
    named = () if file.secret is None else (file.secret,)
    return frozenset({*named, *_secrets_in(file.content or "")})


def encrypted_in(task: Task) -> tuple[str, ...]:
    """All that *task* has encrypted with age."""
    found = [value.age for value in task.env.values() if isinstance(value, SecretValue) and value.age]
    found += [one.age for one in task.files if one.age is not None]
    return (*found, *_named_in(task.config.auth, "age"))


def _secrets_in(text: str) -> set[str]:
    if SECRET_PREFIX not in text:
        return set()
    names = (piece.name for piece in split_variables(text) if not isinstance(piece, str))
    return {name.removeprefix(SECRET_PREFIX) for name in names if name.startswith(SECRET_PREFIX)}


def _texts_in(value: object) -> Iterator[str]:
    """Every text of plain data, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for held in value.values():
            yield from _texts_in(held)
    elif isinstance(value, list | tuple):
        for held in value:
            yield from _texts_in(held)


def _named_in(value: object, kind: str) -> Iterator[str]:
    """The texts in `{secret: NAME}`, or another *kind* of reference, anywhere in plain data."""
    if isinstance(value, Mapping):
        name = value.get(kind)
        if value.keys() == {kind} and isinstance(name, str):
            yield name
        for held in value.values():
            yield from _named_in(held, kind)
    elif isinstance(value, list | tuple):
        for held in value:
            yield from _named_in(held, kind)
