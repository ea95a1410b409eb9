"""What is said, one piece of advice at a time, and how: shares round to what they are, nouns agree with numbers."""

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Advice:
  """One thing worth knowing.

  Attributes:
    kind: 'problem' (look at it before training) or 'note'.
    topic: what it is about, one word or two; the same for every advice of its sort.
    text: what was found.
    todo: what to do about it.
  """

  kind: str
  topic: str
  text: str
  todo: str


def percent(share: float, *, fine_below: float = 1.0) -> str:
  """A share of 1 as a percentage; only nothing is '0 %', and only all is '100 %'.

  Args:
    share: 0 to 1.
    fine_below: percentages below this get a decimal.
  """
  value = 100 * share
  if 0 < value < 0.1:
    return '< 0.1 %'
  if 99.9 < value < 100:
    return '> 99.9 %'
  return f'{value:.1f} %' if 0 < value < fine_below or 99.5 <= value < 100 else f'{value:.0f} %'


def share_of(count: int, size: int) -> str:
  """'30 of 300 (10 %)'."""
  return f'{count} of {size} ({percent(count / size)})' if size else f'{count} of {size}'


def counted(count: int, noun: str, plural: str = '') -> str:
  """'no samples', '1 sample', '2 samples'."""
  return f'{count or "no"} {noun if count == 1 else plural or f"{noun}s"}'


def verb(count: int, many: str, one: str) -> str:
  """The form of a verb that goes with so many."""
  return one if count == 1 else many


def factor(value: float) -> str:
  """A ratio from 1 upwards: '2.3', '4,500'."""
  return f'{value:.2g}' if value < 10 else f'{value:,.0f}' if value < 1e7 else f'{value:.0e}'


def listed(names: Sequence[str], most: int = 5) -> str:
  """'a, b and 3 others'."""
  more = len(names) - most
  return ', '.join(names[:most]) + (f' and {counted(more, "other")}' if more > 0 else '')
