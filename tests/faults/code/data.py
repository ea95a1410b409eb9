"""Faults in missingness, in the random words behind it, and in the data that models read."""

from faults.code.mutation import faults

_SWAP = 'test_missing.py::test_swap_is_another_sample_whole'
_OBSERVED = 'test_prepare.py::test_statistics_are_those_of_the_observed'

LIST = (
  *faults(
    'missingness/missing.py',
    (
      'a sample may lose everything',
      'test_missing.py::test_modality_rates',
      'return ~removed | saved',
      'return ~removed',
    ),
    (
      'the first modality is given back',
      'test_missing.py::test_modality_rates',
      'counter.below(word, spec.num_modalities, backend)',
      'counter.below(word, 1, backend)',
    ),
    (
      'the laws of the rate are exchanged',
      'test_missing.py::test_uniform_law_draws_a_rate_per_sample',
      "if missing.rate_law == 'fixed':",
      "if missing.rate_law != 'fixed':",
    ),
    (
      'frames of padding are removed',
      'test_missing.py::test_frames_go_at_the_rate_and_not_beyond_the_length',
      '~(removed & (time[None, :] < length))',
      '~removed',
    ),
    (
      'the last span is never drawn',
      'test_missing.py::test_a_block_is_one_span_of_the_asked_share',
      'length - span + backend.int32(1), backend)',
      'length - span, backend)',
    ),
    (
      'a subset keeps the others',
      'test_missing.py::test_imbalanced_rates_and_subsets',
      "missing.kind == 'none' or name in missing.kept",
      "missing.kind == 'none' or name not in missing.kept",
    ),
    (
      'uneven rates are forgotten',
      'test_missing.py::test_imbalanced_rates_and_subsets',
      'rates.get(name, missing.rate)',
      'missing.rate',
    ),
  ),
  *faults(
    'missingness/fills.py',
    (
      'a sample may be its own donor',
      _SWAP,
      '+ counter.below(donor, num_donors - 1, backend)',
      '+ counter.below(donor, num_donors, backend)',
    ),
    (
      'raw zero is the mean',
      'test_missing.py::test_zeros_and_mean_are_constants',
      "value = zero[modality.name] if fill == 'zeros'",
      "value = zero[modality.name] if fill == 'mean'",
    ),
    (
      'the true length stays',
      'test_missing.py::test_the_length_of_what_is_gone_is_another_samples',
      'backend.where(keep, inputs[length_name], lengths)',
      'inputs[length_name]',
    ),
    (
      'the first fill is always taken',
      'test_missing.py::test_fills_are_drawn_uniformly',
      'counter.below(fill, len(missing.fills), backend)',
      'counter.below(fill, 1, backend)',
    ),
  ),
  *faults(
    'missingness/counter.py',
    ('a rotation is wrong', 'test_counter.py::test_published_answers', '(17, 29, 16, 24)', '(17, 29, 16, 23)'),
    (
      'every epoch loses the same',
      'test_missing.py::test_modalities_go_missing_independently',
      'zeros + backend.uint32(epoch)',
      'zeros',
    ),
  ),
  *faults(
    'missingness/protocols.py',
    (
      'uneven rates miss their average',
      'test_missing.py::test_imbalanced_conditions_share_their_average',
      '/ (spec.num_modalities - 1), 4)',
      '/ spec.num_modalities, 4)',
    ),
  ),
  *faults(
    'data/sampler.py',
    (
      'every epoch has one order',
      'test_pipeline.py::test_each_seed_visits_every_sample_once_an_epoch',
      'counter.threefry2x32((seed, epoch),',
      'counter.threefry2x32((seed, seed ^ seed),',
    ),
    (
      'batches overlap by a sample',
      'test_pipeline.py::test_each_seed_visits_every_sample_once_an_epoch',
      '* batch_size + positions[None',
      '* (batch_size - 1) + positions[None',
    ),
  ),
  *faults(
    'data/pipeline.py',
    (
      'padding of the last batch counts',
      'test_pipeline.py::test_evaluation_sees_every_sample_once',
      'weight = (index < n)',
      'weight = (index <= n)',
    ),
    (
      'evaluation loses what epoch 0 loses',
      'test_pipeline.py::test_evaluation_and_training_lose_different_things_under_one_seed',
      "'epoch': EVALUATE_EPOCH,",
      "'epoch': 0,",
    ),
    (
      'the clean inputs are damaged',
      'test_pipeline.py::test_a_batch_is_what_numpy_makes_of_its_rows',
      "{**batch, 'clean': clean}",
      "{**batch, 'clean': inputs}",
    ),
    (
      'a run starts at step 0',
      'test_pipeline.py::test_any_step_can_be_the_first',
      'Dataset.range(start_step, start_step + num_steps',
      'Dataset.range(0, num_steps',
    ),
  ),
  *faults(
    'data/device_batches.py',
    (
      'the device repeats the first batch',
      'test_feed.py',
      'self._positions, self._first(step))',
      'self._positions, self._first(start_step))',
    ),
  ),
  *faults(
    'data/prepare.py',
    (
      'statistics are of the test split',
      _OBSERVED,
      "_measure(spec, raw['train'], keeps.get('train'))",
      "_measure(spec, raw['test'], None)",
    ),
    ('statistics read what is removed', _OBSERVED, "keeps.get('train'))", 'None)'),
    (
      'statistics read a frame of padding',
      _OBSERVED,
      '(time < features[modality.length_name][:, None])',
      '(time <= features[modality.length_name][:, None])',
    ),
    ('deviation is not centred', _OBSERVED, 'np.sqrt(moment(2, centre))', 'np.sqrt(moment(2, 0.0))'),
    (
      'raw zero lies on the other side',
      'test_prepare.py::test_standardised_values_and_zero',
      '(np.float32(0) - mean) / statistics',
      '(np.float32(0) + mean) / statistics',
    ),
    (
      'padding is raw zero',
      'test_prepare.py::test_standardised_values_and_zero',
      'part[~inside[i : i + _CHUNK]] = 0.0',
      'part[~inside[i : i + _CHUNK]] = -mean / std',
    ),
    (
      'validation is complete',
      'test_hidden_mask.py::test_prepared_data_hold_nothing_of_what_was_removed',
      "('train', 'validation') if removes",
      "('train',) if removes",
    ),
    (
      'the seed is constant',
      'test_prepare.py::test_the_seed_decides_what_is_missing',
      'seed=seed,\n      keys=dataset',
      'seed=0,\n      keys=dataset',
    ),
    (
      'who lacks a slot gives it to itself',
      'test_prepare.py::test_nobody_gives_to_themselves',
      'rank + 1 + drawn',
      'rank + drawn',
    ),
  ),
  *faults(
    'data/folds.py',
    ('validation is the test fold', 'test_folds.py', "'validation': taken(fold + 1)", "'validation': taken(fold)"),
    ('a video is on both sides', 'test_folds.py', "pool['extras'].get('video', pool['ids'])", "pool['ids']"),
  ),
  *faults(
    'data/raw_inputs.py',
    (
      'a length ends at the first gap',
      'test_prepare.py::test_without_lengths_zeros_and_nan_at_the_end_are_padding',
      'x.shape[1] - np.argmax(used[:, ::-1], axis=1)',
      'np.argmin(used, axis=1)',
    ),
  ),
)
