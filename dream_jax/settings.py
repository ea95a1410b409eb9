"""ConfigDict at the edge, frozen dataclasses inside: one strict conversion that knows types, names and ranges.

A ConfigDict is unhashable and finds its typos late; a frozen dataclass is a static value that `jit` can close over. The
dataclass is the only schema: its annotations say what a field may hold, `setting` adds the comment and the range.
Understood: bool, int, float, str, Literal, X | None, tuple[X, ...], tuple[X, Y], dict[str, X], nested dataclasses and
Any. The dataclass itself names values that contradict each other, in a method `contradictions`.
"""

import dataclasses
import inspect
import math
import struct
import types
import typing
from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeVar

from dream_jax.errors import UserError, did_you_mean, near
from dream_jax.machine import paths

T = TypeVar('T')

# More choices than these are not listed in a message; the near ones are.
_LISTED = 8


@dataclasses.dataclass(frozen=True)
class Rule:
  """What a field may hold beyond its type; for a tuple, what each of its numbers and words may be.

  Attributes:
    comment: what the field means, for the user.
    least: the lowest value.
    above: a value that all must exceed.
    below: a value that all must stay below.
    most: the highest value.
    never: values inside of the range that mean nothing.
    choices: the words that are known, which may grow; all if empty.
    filled: whether '' and () are refused.
    unique: whether a tuple may name nothing twice.
    is_path: whether ~ stands for the user's home.
    varies: whether runs that train side by side may have values of their own: it enters a program as a number.
  """

  comment: str
  least: float | None = None
  above: float | None = None
  below: float | None = None
  most: float | None = None
  never: tuple[float, ...] = ()
  choices: Collection[str] = ()
  filled: bool = False
  unique: bool = False
  is_path: bool = False
  varies: bool = False

  @property
  def numbers(self) -> str:
    """The range in words, such as 'at least 0 and below 1'; '' for all numbers."""
    if self.least is not None and self.most is not None:
      text = f'{_number(self.least)} to {_number(self.most)}'
    else:
      parts = [f'at least {_number(self.least)}'] if self.least is not None else []
      parts += [f'above {_number(self.above)}'] if self.above is not None else []
      parts += [f'below {_number(self.below)}'] if self.below is not None else []
      parts += [f'at most {_number(self.most)}'] if self.most is not None else []
      text = ' and '.join(parts)
    return text + ''.join(f', not {_number(value)}' for value in self.never)

  def holds(self, value: float) -> bool:
    """Whether a number is finite and in the range. Floats are compared as the float32 that a program makes of them."""
    as_it_is = isinstance(value, int)
    value = value if as_it_is else _single(value)
    if not as_it_is and not math.isfinite(value):
      return False
    bound = (lambda x: x) if as_it_is else _single
    return (
      (self.least is None or value >= bound(self.least))
      and (self.above is None or value > bound(self.above))
      and (self.below is None or value < bound(self.below))
      and (self.most is None or value <= bound(self.most))
      and value not in self.never
    )


_ANY = Rule('')


def setting(default: Any, comment: str, *, hashed: bool = True, **rule: Any) -> Any:
  """A field of a dataclass of settings: its default, what it means and what it may hold, in one place.

  Args:
    default: its value where a config says nothing; a dict is copied.
    comment: what the field means, for the user.
    hashed: False where the value cannot be hashed.
    **rule: see `Rule`.
  """
  metadata = {'rule': Rule(comment, **rule)}
  hash_it = None if hashed else False
  if isinstance(default, dict):
    return dataclasses.field(default_factory=default.copy, hash=hash_it, metadata=metadata)
  return dataclasses.field(default=default, hash=hash_it, metadata=metadata)


def rule_of(field: dataclasses.Field) -> Rule:
  """The rule of a field; one that allows everything where it was not made by `setting`."""
  return field.metadata.get('rule', _ANY)


def from_config(cls: type[T], config: Mapping[str, Any], path: str = 'config') -> T:
  """The dataclass `cls` filled from a ConfigDict, a dict, or what JSON made of one.

  A field that the config leaves out takes the default of the dataclass, where it has one. Whole numbers pass as
  floats, lists as tuples, and ~ in a path is replaced; nothing else is converted.

  Args:
    cls: a dataclass type; its annotations and rules say what is allowed.
    config: mapping of field name to value.
    path: dotted name of `config`, for messages.

  Raises:
    UserError: an unknown or missing field, or a value of the wrong type or outside its range; the message names the
      dotted path.
  """
  if not _is_mapping(config):
    raise UserError(f'{path} is {_show(config)}; expected fields of {cls.__name__}: {", ".join(_fields(cls))}')
  fields = _fields(cls)
  hints = typing.get_type_hints(cls)
  for name in config:
    if name not in fields:
      raise UserError(f'{path}.{name} does not exist; {did_you_mean(str(name), fields, prefix=f"{path}.")}')
  values = {}
  for name, field in fields.items():
    if name in config:
      values[name] = _convert(hints[name], config[name], f'{path}.{name}', rule_of(field))
    elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
      raise UserError(f'{path}.{name} is missing; expected {_describe(hints[name])}')
  made = cls(**values)
  for fault in getattr(made, 'contradictions', tuple)():
    raise UserError(f'{path}.{fault}')
  return made


def changed(default: Any, config: Mapping[str, Any], path: str) -> dict[str, Any]:
  """The fields of `config`, converted and checked as by `from_config`, that differ from those of a dataclass object.

  Raises:
    UserError: as `from_config`.
  """
  # Of this class alone: what it inherits is another library's.
  hints = inspect.get_annotations(type(default), eval_str=True)
  fields = {name: field for name, field in _fields(type(default)).items() if name in hints}
  found = {}
  for name in config:
    if name not in fields:
      raise UserError(f'{path}.{name} does not exist; {did_you_mean(str(name), sorted(fields), prefix=f"{path}.")}')
    value = _convert(hints[name], config[name], f'{path}.{name}', rule_of(fields[name]))
    if value != getattr(default, name):
      found[name] = value
  return found


def check(made: Any, path: str) -> None:
  """Nothing, if a dataclass object that was made in Python would pass `from_config`.

  Raises:
    UserError: as `from_config`.
  """
  from_config(type(made), {name: getattr(made, name) for name in _fields(type(made))}, path)


def varying(cls: Any) -> tuple[str, ...]:
  """Names of the fields that runs may have values of their own for."""
  return tuple(name for name, field in _fields(cls).items() if rule_of(field).varies)


def walk(cls: Any, path: str = 'config') -> Iterator[tuple[str, Any, dataclasses.Field | None]]:
  """(dotted name, type, field) of every field of a dataclass, groups before what they hold; the field of a group is
  None, and its type is the dataclass."""
  hints = typing.get_type_hints(cls)
  # What is inherited comes first in a dataclass; users look for the name.
  for name, field in sorted(_fields(cls).items(), key=lambda item: item[0] != 'name'):
    if dataclasses.is_dataclass(hints[name]):
      yield f'{path}.{name}', hints[name], None
      yield from walk(hints[name], f'{path}.{name}')
    else:
      yield f'{path}.{name}', hints[name], field


def expected(hint: Any, rule: Rule) -> str:
  """What a field may hold, in words: its type, then the range or the choices."""
  if typing.get_origin(hint) is typing.Literal:
    return _describe(hint)
  more = [rule.numbers, f'of {", ".join(rule.choices)}' if 0 < len(rule.choices) <= _LISTED else '']
  return ', '.join([_describe(hint), *(text for text in more if text)])


def _fields(cls: Any) -> dict[str, dataclasses.Field]:
  return {field.name: field for field in dataclasses.fields(cls) if field.init}


def _is_mapping(value: Any) -> bool:
  # ConfigDict has the interface of a mapping without being registered as one.
  return isinstance(value, Mapping) or (hasattr(value, 'keys') and hasattr(value, '__getitem__'))


def _convert(hint: Any, value: Any, path: str, rule: Rule) -> Any:
  """`value` as the annotation `hint` and the rule want it."""
  if hint is Any:
    return value
  if dataclasses.is_dataclass(hint):
    return from_config(hint, value, path)  # type: ignore[arg-type]
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  if origin in (typing.Union, types.UnionType):
    return _convert_union(hint, args, value, path, rule)
  if origin is typing.Literal:
    if value in args and type(value) in {type(a) for a in args}:
      return value
    raise _unknown(value, args, path)
  if hint is tuple or origin is tuple:
    return _convert_tuple(hint, args, value, path, rule)
  if origin is not None and issubclass(origin, Mapping):
    if not _is_mapping(value):
      raise _mismatch(hint, value, path)
    return {name: _convert(args[1], value[name], f'{path}.{name}', rule) for name in value}
  if hint is float and type(value) is int and abs(value) < 2**1024:
    value = float(value)
  # type() and not isinstance(): True is an int to Python, never to a user.
  if not (
    isinstance(hint, type) and (type(value) is hint or (hint not in (int, float, bool) and isinstance(value, hint)))
  ):
    raise _mismatch(hint, value, path)
  return _checked(value, path, rule)


def _checked(value: Any, path: str, rule: Rule) -> Any:
  """A number or a word that obeys the rule; a path without ~."""
  if isinstance(value, str):
    if any(c == '\0' or '\ud800' <= c <= '\udfff' for c in value):
      raise UserError(f'{path} is {value!r}; expected text, without characters that no file may hold')
    if rule.filled and not value:
      raise UserError(f'{path} is empty; expected {_wanted(rule)}')
    if rule.choices and value not in rule.choices:
      raise _unknown(value, rule.choices, path)
    return paths.expanded(value, path) if rule.is_path else value
  if type(value) in (int, float) and rule is not _ANY and not rule.holds(value):
    wanted = rule.numbers or 'a number that a float32 can hold'
    raise UserError(f'{path} is {_plain(value)}; expected {wanted}')
  return value


def _unknown(value: Any, choices: Collection[Any], path: str) -> UserError:
  """Names the near choice, and all of them where they are few."""
  words = [str(choice) for choice in choices]
  parts = [f'expected one of {", ".join(words)}'] if len(words) <= _LISTED else []
  if not parts or near(str(value), words):
    parts.append(did_you_mean(str(value), words))
  return UserError(f'{path} is {_show(value)}; {"; ".join(parts)}')


def _wanted(rule: Rule) -> str:
  return f'some of {", ".join(rule.choices)}' if 0 < len(rule.choices) <= _LISTED else rule.comment


def _convert_union(hint: Any, args: tuple[Any, ...], value: Any, path: str, rule: Rule) -> Any:
  if value is None and type(None) in args:
    return None
  branches = [a for a in args if a is not type(None)]
  # An exact match first: 1 stays an int in `float | int`.
  for branch in (*(b for b in branches if type(value) is b), *branches):
    try:
      return _convert(branch, value, path, rule)
    except UserError:
      if len(branches) == 1:
        raise
  raise _mismatch(hint, value, path)


def _convert_tuple(hint: Any, args: tuple[Any, ...], value: Any, path: str, rule: Rule) -> tuple[Any, ...]:
  if not isinstance(value, (tuple, list)):
    raise _mismatch(hint, value, path)
  if rule.filled and not value:
    raise UserError(f'{path} is empty; expected {_wanted(rule)}')
  if not args:
    return tuple(value)
  if len(args) == 2 and args[1] is Ellipsis:
    args = (args[0],) * len(value)
  if len(args) != len(value):
    raise UserError(f'{path} is {_show(value)} with {len(value)} entries; expected {_describe(hint)}')
  made = tuple(_convert(a, v, f'{path}[{i}]', rule) for i, (a, v) in enumerate(zip(args, value, strict=True)))
  twice = [x for i, x in enumerate(made) if x in made[:i]]
  if rule.unique and twice:
    raise UserError(f'{path} names {twice[0]!r} twice; expected each once')
  return made


def _mismatch(hint: Any, value: Any, path: str) -> UserError:
  whole = hint is int and type(value) is float and math.isfinite(value) and value == int(value)
  return UserError(f'{path} is {_show(value)}; expected {_describe(hint)}{f"; write {int(value)}" if whole else ""}')


def _single(value: float) -> float:
  """The nearest float32."""
  try:
    return struct.unpack('f', struct.pack('f', value))[0]
  except OverflowError:
    return math.copysign(math.inf, value)


def _number(value: float) -> str:
  return str(value) if isinstance(value, int) else f'{value:g}'


def _plain(value: Any) -> str:
  try:
    text = repr(value)
  except ValueError:  # Python writes no number of more than 4300 digits.
    return 'a number of thousands of digits'
  return text if len(text) <= 60 else text[:57] + '...'


def _show(value: Any) -> str:
  return 'not set (None)' if value is None else f'{_plain(value)} ({type(value).__name__})'


def _describe(hint: Any) -> str:
  if typing.get_origin(hint) is typing.Literal:
    return f'one of {", ".join(map(str, typing.get_args(hint)))}'
  return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace('typing.', '')
