"""ConfigDict at the edge, frozen dataclasses inside: one strict conversion that knows types and names, never meanings.

A ConfigDict is unhashable and finds its typos late; a frozen dataclass is a static value that `jit` can close over. The
annotations of the dataclass are the only schema. Understood: bool, int, float, str, Literal, X | None, tuple[X, ...],
tuple[X, Y], dict[str, X], nested dataclasses and Any.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from dream_jax.errors import UserError
from dream_jax.suggest import did_you_mean

T = TypeVar('T')


def from_config(cls: type[T], config: Mapping[str, Any], path: str = 'config') -> T:
  """The dataclass `cls` filled from a ConfigDict, a dict, or what JSON made of one.

  A field that the config leaves out takes the default of the dataclass, where it has one. Whole numbers pass as
  floats, lists as tuples; nothing else is converted.

  Args:
    cls: a dataclass type; its annotations say what is allowed.
    config: mapping of field name to value.
    path: dotted name of `config`, for messages.

  Raises:
    UserError: an unknown or missing field, or a value of the wrong type; the message names the dotted path.
  """
  if not _is_mapping(config):
    raise UserError(f'{path} is {_show(config)}; expected fields of {cls.__name__}: {", ".join(_fields(cls))}')
  fields = _fields(cls)
  hints = typing.get_type_hints(cls)
  for name in config:
    if name not in fields:
      raise UserError(f'{path}.{name} does not exist; {did_you_mean(name, fields, prefix=f"{path}.")}')
  values = {}
  for name, field in fields.items():
    if name in config:
      values[name] = _convert(hints[name], config[name], f'{path}.{name}')
    elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
      raise UserError(f'{path}.{name} is missing; expected {_describe(hints[name])}')
  return cls(**values)


def _fields(cls: Any) -> dict[str, dataclasses.Field]:
  return {field.name: field for field in dataclasses.fields(cls) if field.init}


def _is_mapping(value: Any) -> bool:
  # ConfigDict has the interface of a mapping without being registered as one.
  return isinstance(value, Mapping) or (hasattr(value, 'keys') and hasattr(value, '__getitem__'))


def _convert(hint: Any, value: Any, path: str) -> Any:
  """`value` as the annotation `hint` wants it."""
  if hint is Any:
    return value
  if dataclasses.is_dataclass(hint):
    return from_config(hint, value, path)  # type: ignore[arg-type]
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  if origin in (typing.Union, types.UnionType):
    return _convert_union(hint, args, value, path)
  if origin is typing.Literal:
    if value in args and type(value) in {type(a) for a in args}:
      return value
    near = did_you_mean(str(value), [str(a) for a in args])
    raise UserError(f'{path} is {_show(value)}; expected {_describe(hint)}; {near}')
  if hint is tuple or origin is tuple:
    return _convert_tuple(hint, args, value, path)
  if origin is not None and issubclass(origin, Mapping):
    if not _is_mapping(value):
      raise _mismatch(hint, value, path)
    return {name: _convert(args[1], value[name], f'{path}.{name}') for name in value}
  if hint is float and type(value) is int:
    return float(value)
  # type() and not isinstance(): True is an int to Python, never to a user.
  if isinstance(hint, type) and (type(value) is hint or (hint not in (int, float, bool) and isinstance(value, hint))):
    return value
  raise _mismatch(hint, value, path)


def _convert_union(hint: Any, args: tuple[Any, ...], value: Any, path: str) -> Any:
  if value is None and type(None) in args:
    return None
  branches = [a for a in args if a is not type(None)]
  # An exact match first: 1 stays an int in `float | int`.
  for branch in (*(b for b in branches if type(value) is b), *branches):
    try:
      return _convert(branch, value, path)
    except UserError:
      if len(branches) == 1:
        raise
  raise _mismatch(hint, value, path)


def _convert_tuple(hint: Any, args: tuple[Any, ...], value: Any, path: str) -> tuple[Any, ...]:
  if not isinstance(value, (tuple, list)):
    raise _mismatch(hint, value, path)
  if not args:
    return tuple(value)
  if len(args) == 2 and args[1] is Ellipsis:
    args = (args[0],) * len(value)
  if len(args) != len(value):
    raise UserError(f'{path} is {_show(value)} with {len(value)} entries; expected {_describe(hint)}')
  return tuple(_convert(a, v, f'{path}[{i}]') for i, (a, v) in enumerate(zip(args, value, strict=True)))


def _mismatch(hint: Any, value: Any, path: str) -> UserError:
  hint_text = _describe(hint)
  whole = '' if hint is not int or type(value) is not float or value != int(value) else f'; write {int(value)}'
  return UserError(f'{path} is {_show(value)}; expected {hint_text}{whole}')


def _show(value: Any) -> str:
  if value is None:
    return 'not set (None)'
  text = repr(value)
  return f'{text if len(text) <= 60 else text[:57] + "..."} ({type(value).__name__})'


def _describe(hint: Any) -> str:
  if typing.get_origin(hint) is typing.Literal:
    return f'one of {", ".join(map(str, typing.get_args(hint)))}'
  return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace('typing.', '')
