"""What data lack from the start is seen, and is neither kept nor removed in anything that is reported."""

import numpy as np
import pytest

from dream_jax.evaluation import evaluate
from dream_jax.missingness.native import missing_already
from dream_jax.missingness.protocols import conditions
from dream_jax.spec import DatasetSpec, ModalitySpec

_SPEC = DatasetSpec(
  'made', (ModalitySpec('face', 'vector', (2,)), ModalitySpec('pose', 'vector', (2,))), 'multiclass', 2, 'synthetic'
)
_N = 40


@pytest.fixture
def native():
  """Of 40 samples the first 12 lack the face, the last 10 the pose."""
  gone = np.zeros((_N, 2), bool)
  gone[:12, 0] = gone[30:, 1] = True
  return gone


def test_a_slot_is_missing_where_it_holds_nothing_but_raw_zeros():
  modalities = (
    ModalitySpec('scan', 'vector', (2,)),
    ModalitySpec('level', 'vector', (1,)),
    ModalitySpec('steps', 'sequence', (3, 2)),
    ModalitySpec('words', 'tokens', (3,), 9),
    ModalitySpec('face', 'image', (1, 2, 1)),
  )
  spec = DatasetSpec('made', modalities, 'multiclass', 2, 'synthetic')
  unk = modalities[3].unk_id
  features = {
    'scan': np.array([[2, -1], [2, 0]]),
    'level': np.array([[1], [0]]),
    'steps': np.array([[[1, 1], [1, 1], [0, 0]], [[1, 1], [1, 0], [0, 0]]]),
    'steps_length': np.array([2, 2]),
    'words': np.array([[unk, 0, 0], [unk, 5, 0]]),
    'words_length': np.array([1, 2]),
    'face': np.array([3, 3, 3, 4]).reshape(2, 1, 2, 1),
  }
  zero = {'scan': np.array([2, -1]), 'level': np.ones(1), 'steps': np.ones(2), 'face': np.full(1, 3)}
  found = missing_already(spec, features, {name: z.astype(np.float32) for name, z in zero.items()})
  np.testing.assert_array_equal(found, [[True, False, True, True, True], [False] * 5])


def test_figures_of_every_pattern_are_those_counted_by_hand(native):
  label = np.zeros(_N, np.int32)
  right = np.ones((2, _N), bool)
  right[0, :6] = False  # Half of those without a face, in the first seed.
  right[1, 30:35] = False  # Half of those without a pose, in the second.
  prediction = np.where(right[..., None], [1.0, 0.0], [0.0, 1.0])
  found = evaluate._native(_SPEC, prediction, label, native)
  patterns = [(p['missing'], p['count'], p['mean']) for p in found['patterns']]
  assert patterns == [([], 18, 1.0), (['face'], 12, 0.75), (['pose'], 10, 0.75)]
  face = found['modalities']['face']
  assert (face['with']['count'], face['without']['count']) == (28, 12)
  assert face['with']['mean'] == pytest.approx((1 + 23 / 28) / 2)
  few = evaluate._native(_SPEC, prediction[:, 21:], label[21:], native[21:])
  assert [(p['count'], p['mean']) for p in few['patterns']] == [(10, 0.75), (9, None)]


def test_what_is_missing_from_the_start_is_neither_kept_nor_removed(native):
  """A model that knows the truth: 1 for content, 0 for all else; of the empty slots it says .5."""
  kept = np.ones((_N, 2), np.float32)
  kept[:20, 1] = 0.0  # The protocol removes the pose of 20 samples, whatever was there.
  presence = np.where(kept > 0, np.where(native, 0.5, 1.0), 0.0)[None].repeat(2, 0)
  outputs = dict.fromkeys(('presence', 'contributions', 'gates', 'soft_mask'), presence) | {'kept': kept}
  protocol = 'subset/zeros'
  condition = conditions(protocol, _SPEC)[0]
  builder = evaluate._RowBuilder('dream', 'DREAM', None, _SPEC, np.zeros(_N, np.int32), native)
  builder.add_contribution(protocol, condition, outputs)
  entry = builder.contribution[protocol]
  for part in ('presence', 'contributions'):
    assert entry[f'{part}_kept'] == [[1.0, 1.0]]
    assert entry[f'{part}_removed'] == [[None, 0.0]]
    assert entry[f'{part}_missing_already'] == [[0.5, 0.5]]
  assert entry['recognition_auroc'] == [1.0]
  recognition = evaluate._Recognition(_SPEC, native)
  upside_down = {**outputs, 'presence': np.where(native & (kept > 0), -1.0, presence)}
  recognition.add(protocol, condition, upside_down)
  assert recognition.summary()['recognition AUROC, subset/zeros']['mean'] == 1.0
