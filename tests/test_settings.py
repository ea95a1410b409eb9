"""Strict conversion of configs: every wrong field is named with its dotted path and what was expected."""

import dataclasses
from typing import Any, Literal

import pytest
from ml_collections import ConfigDict, config_dict

from dream_jax.errors import UserError
from dream_jax.settings import from_config


@dataclasses.dataclass(frozen=True)
class Inner:
  rate: float = 0.5
  names: tuple[str, ...] = ()
  pairs: tuple[tuple[str, float], ...] = ()


@dataclasses.dataclass(frozen=True)
class Outer:
  steps: int
  inner: Inner
  kind: Literal['a', 'b'] = 'a'
  folder: str | None = None
  flag: bool = False
  size: tuple[int, int] = (1, 2)
  anything: Any = None
  options: dict[str, float] = dataclasses.field(default_factory=dict)


def _good() -> dict[str, Any]:
  return {'steps': 3, 'inner': {'rate': 1, 'names': ('x', 'y'), 'pairs': (('x', 0.2), ('y', 1))}, 'options': {'w': 2}}


def test_config_dict_becomes_nested_frozen_dataclass():
  config = ConfigDict(_good())
  config.folder = config_dict.placeholder(str)
  got = from_config(Outer, config)
  expected = Inner(1.0, ('x', 'y'), (('x', 0.2), ('y', 1.0)))
  assert got == Outer(3, expected, options={'w': 2.0})
  assert type(got.inner.rate) is float
  assert type(got.inner.pairs[1][1]) is float
  assert hash(got.inner) == hash(expected)


def test_lists_from_json_become_tuples():
  got = from_config(Inner, {'rate': 0.1, 'names': ['x'], 'pairs': [['x', 0.5]]})
  assert got == Inner(0.1, ('x',), (('x', 0.5),))


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    ({'stpes': 1}, ['config.stpes does not exist', 'did you mean config.steps?']),
    ({'zzz': 1}, ['config.zzz does not exist', 'known: config.steps, config.inner']),
    ({'inner': {'rates': 0.1}}, ['config.inner.rates does not exist', 'did you mean config.inner.rate or']),
    ({'inner': {'rate': '0.1'}}, ['config.inner.rate', "'0.1' (str)", 'expected float']),
    ({'inner': {'rate': True}}, ['config.inner.rate', 'expected float']),
    ({'inner': {'names': 'x'}}, ['config.inner.names', 'expected tuple[str, ...]']),
    ({'inner': {'names': ('x', 1)}}, ['config.inner.names[1]', 'expected str']),
    ({'inner': {'pairs': (('x', 0.1, 2),)}}, ['config.inner.pairs[0]', '3 entries']),
    ({'inner': 5}, ['config.inner is 5 (int)', 'rate, names, pairs']),
    ({'steps': 0.5}, ['config.steps', 'expected int']),
    ({'steps': 3.0}, ['config.steps', 'write 3']),
    ({'steps': True}, ['config.steps', 'expected int']),
    ({'steps': None}, ['config.steps is not set', 'expected int']),
    ({'kind': 'c'}, ['config.kind', 'one of a, b']),
    ({'folder': 3}, ['config.folder', 'expected str']),
    ({'flag': 1}, ['config.flag', 'expected bool']),
    ({'size': (1, 2, 3)}, ['config.size', '3 entries']),
    ({'options': {'w': 'x'}}, ['config.options.w', 'expected float']),
  ],
)
def test_wrong_field_is_named(change, words):
  with pytest.raises(UserError) as caught:
    from_config(Outer, ConfigDict({**_good(), **change}))
  message = str(caught.value)
  assert '\n' not in message
  for word in words:
    assert word in message


def test_missing_field_without_default_is_named():
  with pytest.raises(UserError, match=r'run\.steps is missing; expected int'):
    from_config(Outer, {'inner': {}}, 'run')
