"""A template's parameters: what a job may set, checked by the schema each has, in bounded time.

The schemas are written by users, so they know no references, their patterns are RE2, and a check that takes too
many steps is given up as an error.
"""

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

from jsonschema.exceptions import ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import extend

from trueup.sources.report import Report
from trueup.sources.schemas import SPEC_VALIDATOR, Schema, make_validator
from trueup.sources.shape import Shape
from trueup.sources.tree import Mark, Path, PlacedMapping
from trueup.sources.wording import add_faults

MAX_STEPS: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """The value a parameter has in one job: as it will stand there, with its mark and, where it has one, its text."""

    value: Any
    text: str | None
    mark: Mark
    nodes: int


class Parameter:
    """One parameter of a template; without *default* a job must set it."""

    __slots__ = ("_schema", "_shape", "_validator", "default")

    def __init__(self, schema: Schema) -> None:
        self.default: Argument | None = None
        self._schema = schema
        self._shape = Shape(schema)
        self._validator: Validator | None = None

    def take(self, report: Report, owner: PlacedMapping, key: str, at: Path) -> Argument:
        """What *owner* has under *key*, texts taken as written; faults go to *report* under the path *at*."""
        plain, clean = self._shape.read(owner[key], owner.texts.get(key))
        if not clean:
            self._check(report, plain, at)
        return _argument(owner, key, plain)

    def _check(self, report: Report, plain: Any, at: Path) -> None:  # noqa: ANN401 - plain data
        if self._validator is None:
            self._validator = make_validator(self._schema, _BOUNDED_VALIDATOR)
        token = _STEPS.set([MAX_STEPS])
        try:
            add_faults(report, self._validator.iter_errors(plain), at)
        except _TooManySteps:
            report.add(at, "takes too long to check against its schema", "make the schema simpler")
        finally:
            _STEPS.reset(token)


def _argument(owner: PlacedMapping, key: str, plain: object) -> Argument:
    held, text = owner[key], owner.texts.get(key)
    if isinstance(held, (dict, list)):  # with its places, so that faults inside are found where they stand
        return Argument(value=held, text=None, mark=owner.marks[key], nodes=count_nodes(held))
    text = None if isinstance(plain, str) else text
    return Argument(value=plain, text=text, mark=owner.marks[key], nodes=1)


def count_nodes(value: object) -> int:
    """How many values a tree holds, itself and its shared parts each time included."""
    if isinstance(value, dict):
        return 1 + sum(count_nodes(held) for held in value.values())
    if isinstance(value, list):
        return 1 + sum(count_nodes(held) for held in value)
    return 1


class _TooManySteps(Exception):
    """The schema and the value together take longer than any sensible pair does."""


_STEPS: Final[ContextVar[list[int] | None]] = ContextVar("steps", default=None)
"""Steps left of the check under way: jsonschema makes a new validator at each level, so none of them can count."""

Keyword = Callable[[Validator, Any, Any, Schema], Iterator[ValidationError] | None]


def _counted(keyword: Keyword) -> Keyword:
    def check(validator: Validator, wanted: Any, value: Any, schema: Schema) -> Iterator[ValidationError]:  # noqa: ANN401
        steps = _STEPS.get()
        if steps is not None:
            steps[0] -= 1 + _size(wanted) // 8 + _size(value) // 8
            if steps[0] < 0:
                raise _TooManySteps
        yield from keyword(validator, wanted, value, schema) or ()

    return check


def _size(value: object) -> int:
    """How much one keyword may have to look at: items of a list, characters (which are faster) of a text."""
    if isinstance(value, str):
        return len(value) // 64
    return len(value) if isinstance(value, (list, dict)) else 0


_BOUNDED_VALIDATOR: Final[Any] = extend(  # type: ignore[no-untyped-call]
    SPEC_VALIDATOR, {name: _counted(keyword) for name, keyword in SPEC_VALIDATOR.VALIDATORS.items()}
)
