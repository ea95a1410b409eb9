"""Samples whose modalities carry a known amount of information about the class.

Every sample has a class y and, per modality m, a strength a_m. Features are `a_m * code_m[y] + nuisance + noise`: the
noise is the same for all, so the strength decides how well the class can be told, and gains make equal strengths about
equally informative in every modality. The nuisance says nothing about the class, but its level falls with the strength,
with some jitter (a noisy sensor is both louder and less useful): the strength can be inferred from the features without
any label. Pure NumPy: a seed gives the same samples everywhere.
"""

import zlib
from collections.abc import Callable, Sequence

import numpy as np

VECTOR_SHAPE = (32,)
SEQUENCE_SHAPE = (20, 12)
IMAGE_SHAPE = (8, 8, 1)
TOKENS_SHAPE = (32,)
VOCAB_SIZE = 64
SHAPES = {'vector': VECTOR_SHAPE, 'sequence': SEQUENCE_SHAPE, 'image': IMAGE_SHAPE, 'tokens': TOKENS_SHAPE}
# Gains at which a linear or counting probe reads equal strengths about equally well in every modality (measured).
_GAINS = {'vector': 1.5, 'sequence': 2.0, 'image': 1.9, 'tokens': 0.3}
_NUISANCE_SLOPE, _NUISANCE_JITTER = 0.7, 0.2
_PAD_AND_UNK = 2
_TOPIC_TOKENS, _CHATTER_TOKENS = 5, 6
MAX_CLASSES = (VOCAB_SIZE - _PAD_AND_UNK - _CHATTER_TOKENS) // _TOPIC_TOKENS


def generate(
  kinds: Sequence[str],
  levels: Sequence[float],
  *,
  num_samples: int,
  num_classes: int,
  strength: tuple[float, float],
  seed: int,
) -> dict[str, np.ndarray]:
  """Samples as arrays: one per modality, `<kind>_length` for sequence and tokens, 'label' and 'informativeness' [n, M].

  Args:
    kinds: modalities, keys of `SHAPES`; each is named after its kind.
    levels: average level of each modality; strengths are multiplied by it (imbalance).
    num_samples: n.
    num_classes: C, number of classes, equally frequent in any stretch of samples.
    strength: (lowest, highest) strength before the level; log-uniform, independent per sample and modality.
    seed: seed of everything.
  """
  rng = _generator(seed, 'samples')
  # Every run of C samples has each class once: all splits, consecutive samples, are stratified.
  runs = np.tile(np.arange(num_classes, dtype=np.int32), (-(-num_samples // num_classes), 1))
  label = rng.permuted(runs, axis=1).ravel()[:num_samples]
  low, high = np.log(strength)
  informativeness = np.exp(rng.uniform(low, high, (num_samples, len(kinds)))) * np.asarray(levels)
  samples = {'label': label, 'informativeness': informativeness.astype(np.float32)}
  for m, kind in enumerate(kinds):
    samples |= _MAKERS[kind](_generator(seed, kind), label, informativeness[:, m], num_classes)
  return samples


def _generator(seed: int, stream: str) -> np.random.Generator:
  """One stream per purpose, so that leaving a modality out does not change the others."""
  return np.random.default_rng([seed, zlib.crc32(stream.encode())])


def _nuisance_level(rng: np.random.Generator, strength: np.ndarray) -> np.ndarray:
  """Level of the nuisance, [n]: falls with the strength, with jitter."""
  return np.exp(-_NUISANCE_SLOPE * np.log(strength) + _NUISANCE_JITTER * rng.standard_normal(len(strength)))


def _codes(rng: np.random.Generator, num_classes: int, width: int) -> np.ndarray:
  """Unit code of each class, [num_classes, width]."""
  codes = rng.standard_normal((num_classes, width))
  codes -= codes.mean(axis=0)
  return codes / np.linalg.norm(codes, axis=1, keepdims=True)


def _lengths(rng: np.random.Generator, num_samples: int, longest: int) -> np.ndarray:
  """Lengths from half to all of the longest, [n] int32."""
  return rng.integers(longest // 2, longest + 1, num_samples, dtype=np.int32)


def _vector(rng, label, strength, num_classes) -> dict[str, np.ndarray]:
  """Code and nuisance in random directions, white noise everywhere."""
  n, width = len(label), VECTOR_SHAPE[0]
  codes = _codes(rng, num_classes, width)
  directions = rng.standard_normal((20, width)) / np.sqrt(width)
  nuisance = _nuisance_level(rng, strength)[:, None] * rng.standard_normal((n, len(directions))) @ directions
  noise = 0.5 * rng.standard_normal((n, width))
  signal = _GAINS['vector'] * strength[:, None] * codes[label]
  return {'vector': (signal + nuisance + noise).astype(np.float32)}


def _sequence(rng, label, strength, num_classes) -> dict[str, np.ndarray]:
  """A burst of the code somewhere in time; the nuisance is a slow drift (first-order autoregressive)."""
  n, (longest, width) = len(label), SEQUENCE_SHAPE
  codes = _codes(rng, num_classes, width)
  directions = rng.standard_normal((4, width)) / np.sqrt(width)
  length = _lengths(rng, n, longest)
  time = np.arange(longest)
  centre = rng.uniform(2.0, length - 3.0)
  burst = np.exp(-0.5 * ((time - centre[:, None]) / 1.5) ** 2)
  drift = np.empty((n, longest, len(directions)))
  drift[:, 0] = rng.standard_normal(drift[:, 0].shape)
  for t in range(1, longest):
    drift[:, t] = 0.8 * drift[:, t - 1] + 0.6 * rng.standard_normal(drift[:, t].shape)
  nuisance = _nuisance_level(rng, strength)[:, None, None] * drift @ directions
  noise = 0.5 * rng.standard_normal((n, longest, width))
  signal = _GAINS['sequence'] * (strength[:, None] * burst)[..., None] * codes[label][:, None]
  frames = np.where((time < length[:, None])[..., None], signal + nuisance + noise, 0.0)
  return {'sequence': frames.astype(np.float32), 'sequence_length': length}


def _image(rng, label, strength, num_classes) -> dict[str, np.ndarray]:
  """A smooth template per class, moved by up to one pixel; the nuisance is a grating of any orientation and phase."""
  n, (height, width, _) = len(label), IMAGE_SHAPE
  templates = rng.standard_normal((num_classes, height, width))
  for axis in (1, 2):
    templates = templates + 0.5 * (np.roll(templates, 1, axis) + np.roll(templates, -1, axis))
  templates -= templates.mean(axis=0)
  templates /= np.linalg.norm(templates, axis=(1, 2), keepdims=True)
  moves = rng.integers(0, 2, (n, 2))
  rows = (np.arange(height) - moves[:, :1]) % height
  columns = (np.arange(width) - moves[:, 1:]) % width
  signal = templates[label[:, None, None], rows[:, :, None], columns[:, None, :]]
  angle, phase = rng.uniform(0, np.pi, (n, 1, 1)), rng.uniform(0, 2 * np.pi, (n, 1, 1))
  y, x = np.mgrid[:height, :width]
  grating = np.cos(1.6 * (np.cos(angle) * x + np.sin(angle) * y) + phase)
  noise = 0.5 * rng.standard_normal((n, height, width))
  level, strength = _nuisance_level(rng, strength)[:, None, None], strength[:, None, None]
  pixels = _GAINS['image'] * strength * signal + level * grating + noise
  return {'image': pixels[..., None].astype(np.float32)}


def _tokens(rng, label, strength, num_classes) -> dict[str, np.ndarray]:
  """Tokens on the topic of the class among tokens drawn uniformly; nuisance is chatter, a few tokens of no topic."""
  n, longest = len(label), TOKENS_SHAPE[0]
  length = _lengths(rng, n, longest)
  topics = _PAD_AND_UNK + rng.permutation(VOCAB_SIZE - _PAD_AND_UNK)
  chatter, topics = np.split(topics[: _CHATTER_TOKENS + num_classes * _TOPIC_TOKENS], [_CHATTER_TOKENS])
  topics = topics.reshape(num_classes, _TOPIC_TOKENS)
  share = _GAINS['tokens'] * strength**2 / (1.0 + strength**2)
  level = _nuisance_level(rng, strength)
  chatter_share = (1.0 - share) * level**2 / (1.0 + level**2)
  draw = rng.random((n, longest))
  on_topic = topics[label[:, None], rng.integers(0, _TOPIC_TOKENS, (n, longest))]
  chatting = chatter[rng.integers(0, _CHATTER_TOKENS, (n, longest))]
  anything = rng.integers(_PAD_AND_UNK, VOCAB_SIZE, (n, longest))
  tokens = np.where(draw < share[:, None], on_topic, np.where(draw > 1.0 - chatter_share[:, None], chatting, anything))
  tokens = np.where(np.arange(longest) < length[:, None], tokens, 0)
  return {'tokens': tokens.astype(np.int32), 'tokens_length': length}


_MAKERS: dict[str, Callable[..., dict[str, np.ndarray]]] = {
  'vector': _vector,
  'sequence': _sequence,
  'image': _image,
  'tokens': _tokens,
}
