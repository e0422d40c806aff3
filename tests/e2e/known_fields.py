"""Finds what a reader of configuration would refuse or, worse, pass over: fields that it does not know, and values that it cannot use.

A shape of a value is one of
    a type               of which it is an instance; a bool is no int
    a set                of which it is an element
    a pattern            that all of a text matches
    {field: shape, ...}  a mapping of these fields, those of Required() among them
    [shape]              a list of such values
    AnyOf(shape, ...)    one of these
    MapOf(shape)         a mapping of any names to such values
"""

import re


class Required(str):
    """The name of a field that must be there."""


class AnyOf(tuple):
    def __new__(cls, *shapes):
        return super().__new__(cls, shapes)


class MapOf:
    def __init__(self, shape):
        self.shape = shape


def mistakes(value, shape, at=""):
    """Yields a text for each part of the value that does not have the shape, its place first."""
    if isinstance(shape, AnyOf):
        found = [list(mistakes(value, one, at)) for one in shape]
        if all(found):
            yield from min(found, key=len)
    elif isinstance(shape, dict):
        if not isinstance(value, dict):
            yield f"{at}: expected a mapping, got {value!r}"
            return
        for name in shape:
            if isinstance(name, Required) and name not in value:
                yield f"{at}.{name}: missing"
        for name, inner in value.items():
            if name in shape:
                yield from mistakes(inner, shape[name], f"{at}.{name}")
            else:
                yield f"{at}.{name}: no such field, expected one of {', '.join(sorted(shape))}"
    elif isinstance(shape, MapOf):
        if not isinstance(value, dict):
            yield f"{at}: expected a mapping, got {value!r}"
            return
        for name, inner in value.items():
            yield from mistakes(name, str, f"{at}: name {name!r}")
            yield from mistakes(inner, shape.shape, f"{at}.{name}")
    elif isinstance(shape, list):
        if not isinstance(value, list):
            yield f"{at}: expected a list, got {value!r}"
            return
        for index, inner in enumerate(value):
            yield from mistakes(inner, shape[0], f"{at}[{index}]")
    elif isinstance(shape, (set, frozenset)):
        if not isinstance(value, (str, int, float, bool, type(None))) or value not in shape:
            yield f"{at}: expected one of {sorted(shape, key=repr)}, got {value!r}"
    elif isinstance(shape, re.Pattern):
        if not isinstance(value, str) or not shape.fullmatch(value):
            yield f"{at}: expected {shape.pattern}, got {value!r}"
    elif not isinstance(value, shape) or (isinstance(value, bool) and shape is not bool):
        yield f"{at}: expected {getattr(shape, '__name__', shape)}, got {value!r}"
