"""Frozen dataclasses to TOML and back, checked by their annotations; a mistake is named with its key and its line.

Knows floats, ints, strings, booleans, tuples, None and dataclasses of the same, which is what `calib/results.py` keeps to.
TOML has no null: a field that is None is left out. tomllib reads, tomlkit writes, since it writes comments.
"""

import dataclasses
import math
import tomllib
import types
import typing
from typing import Any, TypeVar

from calib.errors import CalibrationError

Record = TypeVar("Record")
Path = tuple[str | int, ...]
NUMBERS_PER_LINE = 8
_MISSING = dataclasses.MISSING


class _Wrong(Exception):
    """A value that does not fit its annotation."""

    def __init__(self, path: Path, sentence: str) -> None:
        super().__init__(sentence)
        self.path = path
        self.sentence = sentence


def from_plain(kind: type[Record], plain: Any) -> Record:
    """A dataclass from what `to_plain` made of it, as it comes out of JSON.

    Raises:
        ValueError: A value is missing, unknown or of another type; the key is named.
    """
    try:
        return typing.cast(Record, _read(kind, plain, ()))
    except _Wrong as wrong:
        raise ValueError(f"{_key(wrong.path)}: {wrong.sentence}") from None


def to_plain(record: Any) -> dict[str, Any]:
    """A dataclass as dicts and lists without what is None.

    Raises:
        ValueError: A number is not finite.
    """
    return typing.cast(dict[str, Any], _plain(record, ()))


def read_toml(kind: type[Record], text: str, name: str) -> Record:
    """A dataclass from TOML.

    Args:
        kind: Which.
        text: The file's text.
        name: What the sentences call the file.

    Raises:
        CalibrationError: No TOML, or a key is missing, unknown or holds something else; key and line are named.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CalibrationError(
            f"{name} must be TOML, got: {error}; mend that line, or calibrate again"
        ) from None
    except RecursionError:
        raise CalibrationError(
            f"{name} must be TOML, got values nested without end; calibrate again"
        ) from None
    try:
        return typing.cast(Record, _read(kind, document, ()))
    except _Wrong as wrong:
        where = f"line {line_of(text, wrong.path)}" if wrong.path else "the file"
        key = f", key {_key(wrong.path)}" if wrong.path else ""
        raise CalibrationError(f"{name}, {where}{key}: {wrong.sentence}") from None


def write_toml(record: Any, heading: str) -> str:
    """A dataclass as TOML, with the first line of each table's docstring as a comment for people.

    Args:
        record: The dataclass.
        heading: The comment at the top, any number of lines.

    Raises:
        ValueError: A number is not finite.
    """
    import tomlkit

    document = tomlkit.document()
    for line in heading.splitlines():
        document.add(tomlkit.comment(line))
    document.add(tomlkit.nl())
    _fill(document, record, to_plain(record))
    text: str = tomlkit.dumps(document)
    return text


def line_of(text: str, path: Path) -> int:
    """The line, from 1, on which the value at a path begins.

    tomllib tells no lines, but the longest head of the file that is TOML and lacks the value ends right before it.
    A key that is nowhere gets the line of the table it should be in.
    """
    lines = text.split("\n")  # TOML knows no other line breaks, and splitlines does
    while path and not _holds(tomllib.loads(text), path):
        path = path[:-1]
    before = 0
    for count in range(1, len(lines) + 1):
        try:
            head = tomllib.loads("\n".join(lines[:count]))
        except tomllib.TOMLDecodeError:
            continue  # inside a value of several lines
        if _holds(head, path):
            break
        before = count
    return before + 1


def _holds(document: Any, path: Path) -> bool:
    for step in path:
        if isinstance(step, int):
            if not (isinstance(document, list) and step < len(document)):
                return False
        elif not (isinstance(document, dict) and step in document):
            return False
        document = document[step]
    return True


def _key(path: Path) -> str:
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


# Reading ------------------------------------------------------------------------------------------------------


def _read(kind: Any, value: Any, path: Path) -> Any:
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        (inner,) = [each for each in typing.get_args(kind) if each is not types.NoneType]
        return None if value is None else _read(inner, value, path)
    if origin is typing.Literal:
        allowed = typing.get_args(kind)
        if value not in allowed or isinstance(value, bool):
            raise _Wrong(path, f"needed one of {', '.join(map(str, allowed))}, got {_shown(value)}")
        return value
    if origin is tuple:
        return _read_tuple(typing.get_args(kind), value, path)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _read_dataclass(kind, value, path)
    return _read_scalar(kind, value, path)


def _read_scalar(kind: Any, value: Any, path: Path) -> Any:
    names = {float: "a number", int: "a whole number", str: "a text in quotes", bool: "true or false"}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)  # 1 for 1.0, as a person writes it
    # bool is a kind of int in Python, and not here.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise _Wrong(path, f"needed {names[kind]}, got {_shown(value)}")
    if kind is float and not math.isfinite(value):
        raise _Wrong(path, f"needed a finite number, got {value}")
    return value


def _read_tuple(kinds: tuple[Any, ...], value: Any, path: Path) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _Wrong(path, f"needed a list, got {_shown(value)}")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise _Wrong(path, f"needed a list of {len(kinds)} values, got {len(value)}")
    return tuple(
        _read(kind, each, (*path, index)) for index, (kind, each) in enumerate(zip(kinds, value, strict=True))
    )


def _read_dataclass(kind: type, value: Any, path: Path) -> Any:
    if not isinstance(value, dict):
        raise _Wrong(path, f"needed a table, got {_shown(value)}")
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key in value:
        if key not in fields:
            raise _Wrong((*path, key), f"no such key; known are {', '.join(fields)}")
    arguments = {}
    for name, field in fields.items():
        if name in value:
            arguments[name] = _read(hints[name], value[name], (*path, name))
        elif types.NoneType in typing.get_args(hints[name]):
            arguments[name] = None
        elif field.default is _MISSING and field.default_factory is _MISSING:
            raise _Wrong((*path, name), "this key is missing; calibrate again, or put it back")
    try:
        return kind(**arguments)
    except ValueError as error:
        raise _Wrong(path, str(error)) from None


def _shown(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return "a table" if isinstance(value, dict) else "a list"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


# Writing ------------------------------------------------------------------------------------------------------


def _plain(value: Any, path: Path) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return {
            name: _plain(each, (*path, name)) for name in names if (each := getattr(value, name)) is not None
        }
    if isinstance(value, tuple):
        return [_plain(each, (*path, index)) for index, each in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{_key(path)} must be a finite number, got {value}")
    if not isinstance(value, (bool, int, float, str)):
        raise ValueError(
            f"{_key(path)} must be a number, text, true or false, a tuple of them or a dataclass, got "
            f"{type(value).__name__}"
        )
    return value


def _fill(table: Any, record: Any, plain: dict[str, Any]) -> None:
    """Put a dataclass into a table of tomlkit's: plain values first, since what follows a table belongs to it."""
    import tomlkit

    tables = {key: value for key, value in plain.items() if dataclasses.is_dataclass(getattr(record, key))}
    lists = {key: value for key, value in plain.items() if value and _is_tables(getattr(record, key))}
    for key, value in plain.items():
        if key not in tables and key not in lists:
            table.add(key, _array(value) if isinstance(value, list) else value)
    for key, value in tables.items():
        inner = tomlkit.table()
        inner.comment((getattr(record, key).__doc__ or "").split("\n")[0])
        _fill(inner, getattr(record, key), value)
        table.add(key, inner)
    for key, value in lists.items():
        array = tomlkit.aot()
        for each, plain_each in zip(getattr(record, key), value, strict=True):
            inner = tomlkit.table()
            _fill(inner, each, plain_each)
            array.append(inner)
        table.add(key, array)


def _is_tables(value: Any) -> bool:
    return isinstance(value, tuple) and any(dataclasses.is_dataclass(each) for each in value)


def _array(values: list[Any]) -> Any:
    import tomlkit

    array = tomlkit.array()
    if len(values) <= NUMBERS_PER_LINE and not any(isinstance(each, (list, str)) for each in values):
        array.extend(values)
        return array
    # Sentences and inner lists each on a line of their own, numbers several.
    step = 1 if any(isinstance(each, (list, str)) for each in values) else NUMBERS_PER_LINE
    for start in range(0, len(values), step):
        array.add_line(*values[start : start + step])
    array.add_line(indent="")
    return array
