"""What a modality was worth, against values worked out by hand."""

import numpy as np
import pytest
from scipy import special

from dream_jax.evaluation.modality_values import play
from dream_jax.spec import DatasetSpec, ModalitySpec


def make_spec(task, outputs):
  modalities = tuple(ModalitySpec(name, 'vector', (2,)) for name in ('a', 'b'))
  return DatasetSpec('two', modalities, task, outputs, 'synthetic')


# Coalitions are listed a, b, both. v: .5 of nothing, .6 of a, .9 of b, .8 of both.
WORTH = ((0.6 - 0.5 + 0.8 - 0.9) / 2, (0.9 - 0.5 + 0.8 - 0.6) / 2)


def cases():
  p = np.array([0.6, 0.9, 0.8])
  yield 'binary', 1, special.logit(p)[:, None], 1, np.zeros(1)
  yield 'binary', 1, special.logit(1 - p)[:, None], 0, np.zeros(1)
  yield 'multiclass', 3, np.log(np.stack([(1 - p) / 2, p, (1 - p) / 2], -1)), 1, np.log([0.25, 0.5, 0.25])


@pytest.mark.parametrize(('task', 'outputs', 'prediction', 'label', 'constant'), list(cases()))
def test_shapley_values_of_the_probability_of_the_true_target(task, outputs, prediction, label, constant):
  # The second seed predicts the constant whatever it sees.
  both = np.stack([prediction, np.broadcast_to(constant, prediction.shape)])[:, None].astype(np.float32)
  values, shapley = play(make_spec(task, outputs), both, np.array([label], np.int32), constant.astype(np.float32))
  np.testing.assert_allclose(values, [[[0.6, 0.9, 0.8]], [[0.5, 0.5, 0.5]]], rtol=1e-5)
  np.testing.assert_allclose(shapley, [[WORTH], [(0, 0)]], atol=1e-6)


def test_regression_is_worth_how_near_it_comes():
  # exp(-Huber): at distance 0 it is 1, at .2 exp(-.04), at 1 exp(-.75); nothing predicts 0, one off.
  prediction = np.array([1.0, 0.8, 2.0], np.float32).reshape(1, 1, 3, 1)
  values, shapley = play(make_spec('regression', 1), prediction, np.array([1.0], np.float32), np.zeros(1, np.float32))
  a, b, both, nothing = 1.0, np.exp(-0.04), np.exp(-0.75), np.exp(-0.75)
  np.testing.assert_allclose(values[0, 0], [a, b, both], rtol=1e-5)
  np.testing.assert_allclose(
    shapley[0, 0], [(a - nothing + both - b) / 2, (b - nothing + both - a) / 2], rtol=1e-4, atol=1e-6
  )
