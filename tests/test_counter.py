"""The generator: published answers, the same bits in three frameworks, uniform numbers."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from dream_jax.missingness import counter
from dream_jax.missingness.counter import NUMPY

BACKENDS = ('numpy', 'tensorflow', 'jax')


def _numbers(seed, n=257):
  return np.random.default_rng(seed).integers(0, 2**32, n, dtype=np.uint32)


@pytest.mark.parametrize('name', BACKENDS)
@pytest.mark.parametrize(
  ('key', 'count', 'expected'),
  [
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 2, (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
  ],
)
def test_published_answers(name, key, count, expected):
  # The vectors of the Random123 distribution (kat_vectors, threefry2x32 20).
  b = counter.backend(name)
  key, count = ([b.uint32(np.array([w], np.uint32)) for w in pair] for pair in (key, count))
  assert tuple(int(np.asarray(w)[0]) for w in counter.threefry2x32(key, count, b)) == expected


@pytest.mark.parametrize('name', BACKENDS[1:])
def test_all_backends_draw_the_same_bits(name):
  keys = _numbers(0, 64).reshape(32, 2)
  bounds = _numbers(1, 10) // 3 + 1

  def draw(b):
    state = counter.sample_state(-7, b.uint32(np.arange(32)), keys, b)
    word, other = counter.words(state, 5, b.arange(10), b.arange(10), b)
    limits = b.reshape(b.uint32(bounds), (1, -1))
    return word, other, counter.below(word, 13, b), counter.multiply_high(word, limits, b)

  expected = draw(NUMPY)
  b = counter.backend(name)
  # Traced, as it is used: constants folded by a compiler must not change a bit.
  found = jax.jit(lambda: draw(b))() if name == 'jax' else draw(b)
  for x, y in zip(expected, found, strict=True):
    np.testing.assert_array_equal(x, np.asarray(y))
    assert x.dtype == np.asarray(y).dtype


def test_multiply_high_is_the_upper_half_of_the_product():
  x, y = _numbers(2, 5000), _numbers(3, 5000)
  x[:3], y[:3] = (0, 0xFFFFFFFF, 1), (5, 0xFFFFFFFF, 0xFFFFFFFF)
  expected = (x.astype(np.uint64) * y.astype(np.uint64)) >> np.uint64(32)
  np.testing.assert_array_equal(counter.multiply_high(x, y, NUMPY), expected.astype(np.uint32))


def test_seed_and_epoch_may_be_given_per_sample():
  keys = _numbers(4, 12).reshape(6, 2)
  seeds, epochs = np.array([3, 3, 9, 9, 0, 2**32 - 1], np.uint32), np.array([0, 1, 0, 1, 5, 7], np.uint32)
  together = counter.sample_state(seeds, epochs, keys, NUMPY)
  for i in range(6):
    alone = counter.sample_state(int(seeds[i]), int(epochs[i]), keys[i : i + 1], NUMPY)
    assert (alone[0][0], alone[1][0]) == (together[0][i], together[1][i])


def test_every_part_of_the_address_matters():
  keys = _numbers(5, 2).reshape(1, 2)

  def word(seed=0, epoch=0, keys=keys, stream=0, slot=0, position=0):
    state = counter.sample_state(seed, epoch, keys, NUMPY)
    return tuple(int(w[0, 0]) for w in counter.words(state, stream, slot, np.array([position]), NUMPY))

  changed = ({'seed': 1}, {'epoch': 1}, {'keys': keys ^ 1}, {'keys': keys[:, ::-1]}, {'stream': 1}, {'slot': 1})
  drawn = [word(), word(position=1), *(word(**c) for c in changed)]
  assert len({w for pair in drawn for w in pair}) == 2 * len(drawn)


def test_words_are_uniform_and_independent():
  keys = np.stack([np.arange(4000), np.zeros(4000)], 1).astype(np.uint32)
  state = counter.sample_state(0, 0, keys, NUMPY)
  word, other = counter.words(state, 0, 0, np.arange(4), NUMPY)
  counts = np.bincount(counter.below(word, 10, NUMPY).ravel(), minlength=10)
  assert ((counts - 1600.0) ** 2 / 1600).sum() < 28  # 99.9 % of chi-square with 9 degrees of freedom.
  uniform = np.concatenate([word, other], 1) / 2**32
  correlation = np.corrcoef(uniform.T) - np.eye(8)
  assert np.abs(correlation).max() < 4.5 / np.sqrt(4000)


def test_threshold_is_the_probability_in_words():
  assert counter.threshold(0.0) == 0
  assert counter.threshold(0.25) == 2**30
  assert counter.threshold(1 - 1e-12) == 2**32 - 1


def test_host_code_imports_no_framework():
  code = (
    'import sys; import dream_jax.data.pipeline, dream_jax.data.prepare, dream_jax.missingness.protocols; '
    'print([m for m in ("tensorflow", "jax") if m in sys.modules])'
  )
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert done.stdout.strip() == '[]'
