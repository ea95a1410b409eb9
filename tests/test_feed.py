"""Batches that the devices make are those of the host, bit for bit."""

import jax
import numpy as np
from small_runs import FAST_COMPILE, small_prepared, small_recipe

from dream_jax.missingness.missing import Missing
from dream_jax.training import feed
from dream_jax.training.feed import Feed
from dream_jax.training.runs import Runs


def test_the_device_makes_the_batches_of_the_host(monkeypatch):
  monkeypatch.setattr(feed, 'compiler_options', lambda: FAST_COMPILE)
  prepared = small_prepared('regression', ('pose', 'text'), train=21, validation=4, test=4)
  found = {}
  for path in ('device', 'host'):
    given = Feed(small_recipe(train__data_path=path), prepared)
    assert given.on_device == (path == 'device')
    batches = given.batches(
      Missing('modality', 0.5, fills=('zeros', 'noise', 'swap')),
      rates=(0.2, 0.7),
      runs=Runs((3, 11)),
      batch_size=8,
      start_step=2,  # The second call begins another epoch.
      num_steps=4,
      steps_per_call=2,
      with_clean=True,
    )
    found[path] = jax.tree.map(np.asarray, list(batches))
  jax.tree.map(np.testing.assert_array_equal, found['device'], found['host'])
  first, second = found['host']
  assert not np.array_equal(first['label'], second['label'])
  share = np.mean([first['kept'].mean((0, 2, 3)), second['kept'].mean((0, 2, 3))], axis=0)
  assert share[0] > share[1]  # Each run has its own rate.
