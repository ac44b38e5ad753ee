"""A job's own fields laid over those of its template.

Mappings merge, lists whose items have a `name` merge by it, other lists replace, `null` removes. Neither side is
changed; each value keeps the place where it was written.
"""

from typing import Any

from trueup.sources.tree import PlacedList, PlacedMapping


def lay_over(base: PlacedMapping, over: PlacedMapping) -> PlacedMapping:
    """*base* with *over* laid over it; nulls that remain in mappings are removed."""
    made = PlacedMapping()
    for key, held in base.items():
        if key not in over:
            made.put(key, without_nulls(held), base.marks[key], base.texts.get(key))
    for key, held in over.items():
        if key not in base or base[key] is None:
            made.put(key, without_nulls(held), over.marks[key], over.texts.get(key))
        else:
            made.put(key, _merged(base[key], held), over.marks[key], over.texts.get(key))
    return _drop_nulls(made)


def without_nulls(value: Any) -> Any:  # noqa: ANN401 - any value of a tree, or plain data
    """The same without the entries of mappings that are null: what they would remove is not there."""
    if isinstance(value, PlacedMapping):
        made = PlacedMapping()
        for key, held in value.items():
            made.put(key, without_nulls(held), value.marks[key], value.texts.get(key))
        return _drop_nulls(made)
    if isinstance(value, PlacedList):
        items = PlacedList()
        for index, held in enumerate(value):
            items.put(without_nulls(held), value.marks[index], value.texts.get(index))
        return items
    if isinstance(value, dict):
        return {key: without_nulls(held) for key, held in value.items() if held is not None}
    return [without_nulls(held) for held in value] if isinstance(value, list) else value


def _drop_nulls(made: PlacedMapping) -> PlacedMapping:
    for key in [key for key, held in made.items() if held is None]:
        del made[key]
        del made.marks[key]
        made.texts.pop(key, None)
    return made


def _merged(base: Any, over: Any) -> Any:  # noqa: ANN401 - any value of a tree
    if isinstance(base, PlacedMapping) and isinstance(over, PlacedMapping):
        return lay_over(base, over)
    if isinstance(base, PlacedList) and isinstance(over, PlacedList):
        if _are_named(base) and _are_named(over):
            return _merged_by_name(base, over)
        if _is_only_and_nameless(base) and _is_only_and_nameless(over):
            return _merged_only(base, over)
    return without_nulls(over)


def _are_named(items: PlacedList) -> bool:
    return bool(items) and all(
        isinstance(item, PlacedMapping) and isinstance(item.get("name"), str) for item in items
    )


def _is_only_and_nameless(items: PlacedList) -> bool:
    """An only group or task may leave its name out: two such lists speak of the same one."""
    return len(items) == 1 and isinstance(items[0], PlacedMapping) and "name" not in items[0]


def _merged_only(base: PlacedList, over: PlacedList) -> PlacedList:
    made = PlacedList()
    made.put(lay_over(base[0], over[0]), over.marks[0])
    return made


def _merged_by_name(base: PlacedList, over: PlacedList) -> PlacedList:
    """Base's order, then what is new. A name that comes twice stays twice, for validation to refuse."""
    made = PlacedList()
    first: dict[str, int] = {}
    for index, item in enumerate(over):
        first.setdefault(item["name"], index)
    used: set[int] = set()
    for index, item in enumerate(base):
        at = first.get(item["name"])
        if at is None or at in used:
            made.put(without_nulls(item), base.marks[index])
        else:
            used.add(at)
            made.put(lay_over(item, over[at]), over.marks[at])
    for index, item in enumerate(over):
        if index not in used:
            made.put(without_nulls(item), over.marks[index])
    return made
