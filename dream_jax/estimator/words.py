"""A column of text as numbers of words.

Text is lower case, and cut into words, signs, and single characters of Chinese and Japanese. The vocabulary is that of
the training rows: words that occur in at least two of them, the most frequent first. Number 0 is padding, 1 a word that
is unknown.
"""

import collections
import dataclasses
import re
from typing import Any

import numpy as np

from dream_jax.errors import InputError
from dream_jax.estimator.modality import Modality
from dream_jax.estimator.notes import Notes
from dream_jax.estimator.table import SAID, Table

_CJK = '\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff'
_TOKEN = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+(?:['’][^\W{_CJK}]+)*|[^\w\s]")
_PADDING, _UNKNOWN = 0, 1
_MOST_WORDS = 256


@dataclasses.dataclass(frozen=True)
class Texts:
  """What turns text into numbers of words.

  Attributes:
    column: its name.
    length: words of a text that are read, from the start.
    words: the vocabulary; the first has number 2.
  """

  column: str
  length: int
  words: list[str]

  kind = 'tokens'

  @property
  def shape(self) -> tuple[int, ...]:
    return (self.length,)

  @property
  def vocab_size(self) -> int:
    return len(self.words) + 2

  def read(self, name: str, table: Table, notes: Notes) -> dict[str, np.ndarray]:
    """Ids int32 [n, T] and lengths int32 [n]; length 0 where the text is missing."""
    held = table.column(self.column)
    if held.kind not in ('words', 'empty'):
      raise InputError(f'column {self.column!r} holds {SAID[held.kind]}; expected text, as in training')
    place = {word: i for i, word in enumerate(self.words, 2)}
    ids = np.full((table.size, self.length), _PADDING, np.int32)
    length = np.zeros(table.size, np.int32)
    for row, value in enumerate(held.values):
      found = [place.get(word, _UNKNOWN) for word in split(value)[: self.length]] if isinstance(value, str) else []
      ids[row, : len(found)], length[row] = found, len(found)
    return {name: ids, f'{name}_length': length}


def split(value: str) -> list[str]:
  """The words of a text."""
  return _TOKEN.findall(value.lower())


def fit_texts(name: str, modality: Modality, table: Table) -> Texts:
  """The vocabulary of training rows.

  Raises:
    InputError: there is no word in them.
  """
  (column,) = modality.columns
  texts = [split(v) for v in table.column(column).values if isinstance(v, str)]
  if not any(texts):
    raise InputError(f'modality {name!r} holds no word in any training row; expected text: leave it out')
  rows = collections.Counter(word for words in texts for word in set(words))
  often = [word for word, count in rows.items() if count > 1]
  # By frequency, then by name: the order of rows does not matter.
  words = sorted(often, key=lambda word: (-rows[word], word))[: modality.vocabulary - 2]
  longest = max(map(len, texts))
  return Texts(column, min(longest, modality.max_length or _MOST_WORDS), words)


def restore(state: dict[str, Any]) -> Texts:
  """What `dataclasses.asdict` made of one."""
  return Texts(**state)
