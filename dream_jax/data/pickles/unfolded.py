"""What the containers of a pickle hold once every reference is followed, measured before anything follows them.

A few bytes can refer to one list a thousand times, and that list to another: whoever walks through such content, makes
an array of it or prints it never comes to an end. Here each container is looked at once.
"""

from collections.abc import Iterable
from typing import Any

from dream_jax.data.pickles.stand_ins import Array, RefusedError
from dream_jax.machine import memory

MOST_DEEP = 32  # As many axes as an array of old NumPy has.
_ITEM = 16


def arrays_of(content: Any, allowance: int) -> list[Array]:
  """Every array of a tree, each once; they fit their bytes.

  Args:
    content: what an interpreter of pickles made.
    allowance: bytes that it may hold.

  Raises:
    RefusedError: it holds itself or more than the allowance, is nested too deep, or holds other things than
      containers, arrays, numbers and text.
    ValueError: an array that does not fit its bytes.
  """
  found: dict[int, Array] = {}
  _measure(content, MOST_DEEP, allowance, {}, found)
  return list(found.values())


def with_arrays(content: Any, made: dict[int, Any]) -> Any:
  """A measured tree with arrays instead of their stand-ins, made[id]; parts that occur twice stay one object."""
  return _replaced(content, made, {})


def _measure(
  part: Any, deepest: int, allowance: int, sizes: dict[int, tuple[int, int] | None], found: dict[int, Array]
) -> tuple[int, int]:
  """(bytes, containers above one another) of a part; `sizes` has what is known of others, None while that is open."""
  if part is None or isinstance(part, int | float | complex):
    return _ITEM, 0
  if isinstance(part, str | bytes):
    return _ITEM + len(part), 0
  if id(part) in sizes:
    known = sizes[id(part)]
    if known is None:
      raise RefusedError('a container that holds itself')
    if known[1] > deepest:
      raise RefusedError(f'containers nested more than {MOST_DEEP} deep')
    return known
  if isinstance(part, Array):
    size, height, items = _ITEM, 0, [part.content] if isinstance(part.content, list) else []
  elif isinstance(part, dict | list | tuple | set | frozenset):
    size, height, items = _ITEM, 1, part.values() if isinstance(part, dict) else part
  else:
    raise RefusedError(f'a {type(part).__name__.strip("_").lower()} outside an array')
  if not deepest:
    raise RefusedError(f'containers nested more than {MOST_DEEP} deep')
  sizes[id(part)] = None
  if isinstance(part, dict):
    size += _sum_of_keys(part)
  below = 0
  for item in items:
    held, levels = _measure(item, deepest - 1, allowance, sizes, found)
    size, below = size + held, max(below, levels)
    if size > allowance:
      raise RefusedError(f'more than {memory.show(allowance)} of content, by references to what it has once')
  if isinstance(part, Array):
    found[id(part)] = part
    size += part.nbytes()
    if size > allowance:
      raise RefusedError(f'more than {memory.show(allowance)} of content, by references to what it has once')
  sizes[id(part)] = size, height + below
  return size, height + below


def _sum_of_keys(keys: Iterable[Any]) -> int:
  return sum(_ITEM + (len(key) if isinstance(key, str | bytes) else 0) for key in keys)


def _replaced(content: Any, made: dict[int, Any], done: dict[int, Any]) -> Any:
  if id(content) in done:
    return done[id(content)]
  if isinstance(content, Array):
    return made[id(content)]
  if isinstance(content, dict):
    result: Any = {key: _replaced(value, made, done) for key, value in content.items()}
  elif isinstance(content, list | tuple):
    result = type(content)([_replaced(value, made, done) for value in content])
  else:
    return content
  done[id(content)] = result
  return result
