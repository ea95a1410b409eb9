"""Evaluation protocols by name: under which conditions a trained model is asked to predict."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

from dream_jax.errors import UserError
from dream_jax.missingness.missing import FILLS, Missing
from dream_jax.spec import DatasetSpec

_MODALITY_RATES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
_FRAME_RATES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_BLOCK_RATES = (0.1, 0.3, 0.5, 0.7)
_IMBALANCED_RATES = (0.3, 0.5)
_MOST_MODALITIES = 8


@dataclasses.dataclass(frozen=True)
class Condition:
  """One column of a table.

  Attributes:
    name: what it is called there, unique within a protocol.
    missing: what the samples lack.
    rate: where it lies on a curve over missing rates; None if it lies on none.
  """

  name: str
  missing: Missing
  rate: float | None = None


Conditions = Callable[[DatasetSpec, str], tuple[Condition, ...]]
# Name -> what makes its conditions of a data set and a fill.
PROTOCOLS: dict[str, Conditions] = {}


def conditions(protocol: str, spec: DatasetSpec) -> tuple[Condition, ...]:
  """The conditions of a protocol for a data set, in order.

  Args:
    protocol: one of `protocol_names()`.
    spec: the data set.

  Raises:
    UserError: an unknown protocol, or subsets of too many modalities.
  """
  if protocol not in PROTOCOLS:
    raise UserError(f'unknown protocol {protocol!r}; expected one of {", ".join(protocol_names())}')
  return PROTOCOLS[protocol](spec, protocol.partition('/')[2])


def protocol_names() -> tuple[str, ...]:
  """All protocols, such as 'modality/zeros'."""
  return tuple(PROTOCOLS)


def register(kind: str, conditions: Conditions) -> None:
  """Makes protocols of yours known: 'KIND/FILL' for every fill.

  The file of a `--config` is a good place to call it: it is read before any name is looked up.

  Args:
    kind: how they are called before the slash.
    conditions: (spec, fill) -> the conditions, in order. `Curve` makes them for a rated kind of missingness.

  Raises:
    UserError: the name is one of ours, or holds a slash.
  """
  if kind in _BUILT_IN or '/' in kind or not kind:
    raise UserError(f'a protocol is called {kind!r}; expected a name without slash, and none of {", ".join(_BUILT_IN)}')
  _register(kind, conditions)


def own_protocols() -> tuple[Conditions, ...]:
  """The functions of all protocols that were registered."""
  return tuple(dict.fromkeys(PROTOCOLS[name] for name in PROTOCOLS if name.partition('/')[0] not in _BUILT_IN))


@dataclasses.dataclass(frozen=True)
class Curve:
  """Conditions of one kind of missingness at several rates."""

  kind: str
  rates: tuple[float, ...]

  def __call__(self, spec: DatasetSpec, fill: str) -> tuple[Condition, ...]:
    """One condition a rate."""
    del spec
    return tuple(Condition(_named(r), Missing(self.kind, r, fills=(fill,)), r) for r in self.rates)


def _named(rate: float) -> str:
  return f'{rate:.1f}' if rate == round(rate, 1) else f'{rate:g}'


def _register(kind: str, conditions: Conditions) -> None:
  PROTOCOLS.update({f'{kind}/{fill}': conditions for fill in FILLS})


def _complete(spec: DatasetSpec, fill: str) -> tuple[Condition, ...]:
  del spec, fill
  return (Condition('complete', Missing()),)


def _unequal(spec: DatasetSpec, fill: str) -> tuple[Condition, ...]:
  """Every modality in turn missing most, at each average."""
  return tuple(c for rate in _IMBALANCED_RATES for c in _imbalanced(spec, fill, rate))


def _subsets(spec: DatasetSpec, fill: str) -> tuple[Condition, ...]:
  """Every non-empty proper subset kept, the smallest first."""
  if spec.num_modalities > _MOST_MODALITIES:
    raise UserError(
      f'{spec.name} has {spec.num_modalities} modalities; the subset protocol takes at most {_MOST_MODALITIES}, '
      'use modality/zeros'
    )
  kept = (k for size in range(1, spec.num_modalities) for k in itertools.combinations(spec.names, size))
  return tuple(Condition('+'.join(k), Missing('subset', kept=k, fills=(fill,))) for k in kept)


def _imbalanced(spec: DatasetSpec, fill: str, average: float) -> list[Condition]:
  """One shared rate, and each modality in turn at a heavy rate with the others lowered to the same average.

  The averages are those of the rates; keeping at least one modality lowers what is really missing a little.
  """
  heavy = min(0.9, 2 * average)
  found = [Condition(f'all {average:g}', Missing('modality', average, fills=(fill,)))]
  for name in spec.names:
    found.append(
      Condition(f'{name} {heavy:g}', Missing('imbalanced', rates=uneven(spec, name, average), fills=(fill,)))
    )
  return found


def uneven(spec: DatasetSpec, heavy: str, average: float) -> tuple[tuple[str, float], ...]:
  """Rates of all modalities with this mean: min(0.9, twice the mean) for `heavy`, the others share the rest."""
  rate = min(0.9, 2 * average)
  light = round((spec.num_modalities * average - rate) / (spec.num_modalities - 1), 4)
  return tuple((name, rate if name == heavy else light) for name in spec.names)


PROTOCOLS['complete'] = _complete
_register('modality', Curve('modality', _MODALITY_RATES))
_register('subset', _subsets)
_register('frames', Curve('frames', _FRAME_RATES))
_register('block', Curve('block', _BLOCK_RATES))
_register('imbalanced', _unequal)
_BUILT_IN = tuple(dict.fromkeys(name.partition('/')[0] for name in PROTOCOLS))
