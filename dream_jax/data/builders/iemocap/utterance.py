"""A labelled utterance of IEMOCAP, and the frames of its features: what every layout of files is read into.

Letters: T frames, D feature width.
"""

import dataclasses
import os
import re
from typing import Any

import numpy as np

from dream_jax.data import reading
from dream_jax.data.builders import npz_source
from dream_jax.errors import UserError

# The order of the labels in DialogueRNN's and GCNet's files; the four classes of the four-way task are the first four.
CLASSES = ('happy', 'sad', 'neutral', 'angry', 'excited', 'frustrated')
MODALITIES = ('text', 'audio', 'vision')
_ID = re.compile(r'(Ses0([1-5])[FM]_\w+)_([FM])\w+')


@dataclasses.dataclass(frozen=True)
class Utterance:
  """One utterance.

  Attributes:
    id: as in the corpus, such as Ses03F_impro02_M005.
    dialogue: the part of the id that its dialogue has, such as Ses03F_impro02.
    session: 1 to 5; every session has two speakers of its own.
    speaker: 'F' or 'M'.
    label: index into `CLASSES`.
    text: what was said, or ''.
  """

  id: str
  dialogue: str
  session: int
  speaker: str
  label: int
  text: str


# An utterance and, by modality, the frames of its features, [T, D] float; None where it has none.
Sample = tuple[Utterance, dict[str, np.ndarray | None]]


def make_utterance(key: Any, label: int, where: str, *, speaker: Any = None, text: Any = '') -> Utterance:
  """The utterance of an id; `speaker` is read from the id where it is None.

  Raises:
    UserError: the id is none of IEMOCAP's, or the speaker is neither 'F' nor 'M'.
  """
  key = reading.exact_text(key, f'{where}: the id of an utterance')
  match = _ID.fullmatch(key)
  if match is None:
    raise UserError(f'{where} has utterance {key!r}; expected ids such as Ses03F_impro02_M005: is this IEMOCAP?')
  dialogue, session, gender = match.groups()
  speaker = gender if speaker is None else reading.exact_text(speaker, f'{where}: the speaker of {key}')
  if speaker not in ('F', 'M'):
    raise UserError(f'{where}: the speaker of {key} is {speaker!r}; expected F or M: is this the published file?')
  return Utterance(
    key, dialogue, int(session), speaker, label, reading.exact_text(text, f'{where}: the sentence of {key}')
  )


def as_frames(values: Any, where: str) -> np.ndarray | None:
  """Features as [T, D]: one vector is one frame, and nothing is None.

  Raises:
    UserError: they are no numbers, or of another rank.
  """
  try:
    frames = np.asarray(values)
  except ValueError:
    raise UserError(f'{where} are unequal lists; expected numbers [D] or [T, D]: extract them again') from None
  if frames.dtype.kind not in 'fiu' or frames.ndim not in (1, 2):
    raise UserError(
      f'{where} are {frames.dtype} of shape {frames.shape}; expected numbers [D] or [T, D]: extract them again'
    )
  return np.atleast_2d(frames) if frames.size else None


def load_npy(path: str) -> np.ndarray:
  """The array of a .npy file; pickled objects are refused unread.

  Raises:
    UserError: no such file, or not a .npy array.
  """
  with reading.naming(path, 'a .npy array', 'extract or fetch it again'), open(path, 'rb') as file:
    return npz_source.read_array(file, os.path.getsize(path))
