"""The check of a user's data: every finding on data in which it was planted, the probes, the words and the command."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import small_data

from dream_jax import metrics
from dream_jax.data import check
from dream_jax.data.checks import content, pooling, probe, verdict
from dream_jax.data.checks.advice import advise
from dream_jax.data.checks.description import WIDTH
from dream_jax.data.checks.duplicates import WHOLE
from dream_jax.data.checks.inspection import Lengths
from dream_jax.data.checks.probe import Probes, Score
from dream_jax.data.datasets import Dataset, Split, _assemble, sample_keys
from dream_jax.errors import UserError
from dream_jax.spec import DatasetSpec, ModalitySpec

SIZES = {'train': 300, 'validation': 200, 'test': 250}
OUTPUTS = {'regression': 1, 'binary': 1, 'multiclass': 3, 'multilabel': 4}
MODALITIES = (ModalitySpec('told', 'vector', (5,)), ModalitySpec('noise', 'sequence', (4, 3)))


def make_spec(task='multiclass', modalities=MODALITIES, **options):
  return DatasetSpec('planted', modalities, task, OUTPUTS[task], 'synthetic', **options)


def make(task='multiclass', sizes=None, seed=0) -> Dataset:
  """'told' holds the label with a little noise, 'noise' holds nothing; every class is about equally frequent."""
  rng = np.random.default_rng(seed)
  spec, splits = make_spec(task), {}
  for name, n in (sizes or SIZES).items():
    hidden = rng.normal(size=(n, 5)).astype(np.float32)
    if task == 'regression':
      label = (2 * hidden[:, 0] + 5).astype(np.float32)
    elif task == 'binary':
      label = (hidden[:, 0] > 0).astype(np.int32)
    elif task == 'multiclass':
      label = hidden[:, :3].argmax(1).astype(np.int32)
    else:
      label = (hidden[:, :4] > 0.5).astype(np.float32)
    length = rng.integers(1, 4, n).astype(np.int32)
    noise = rng.normal(size=(n, 4, 3)).astype(np.float32)
    noise[np.arange(4) >= length[:, None]] = 0
    told = hidden + 0.1 * rng.normal(size=hidden.shape).astype(np.float32)
    ids = np.array([f'{name}{i:04}' for i in range(n)])
    features = {'told': told, 'noise': noise, 'noise_length': length}
    splits[name] = Split(ids, sample_keys(ids), features, label, {})
  return Dataset(spec, splits, {})


def topics(findings, kind=None):
  return {a.topic for a in advise(findings) if kind in (None, a.kind)}


def text_of(findings, topic):
  (found,) = (a for a in advise(findings) if a.topic == topic)
  return found.text


def modality(findings, name):
  return next(m for m in findings.modalities if m.name == name)


def repeats(findings, what):
  return {(r.first, r.second): r.count for r in findings.repeats if r.what == what and r.count}


# What is in the data.


def test_lengths_values_and_gaps_are_exact():
  dataset = make()
  train = dataset.splits['train']
  train.features['noise_length'][:] = 2
  train.features['noise_length'][:3] = (4, 4, 1)
  noise = np.zeros_like(train.features['noise'])
  noise[:, :2] = np.random.default_rng(0).normal(size=(300, 2, 3))
  noise[:2, 2:] = 1.0
  noise[2, 1:] = 0
  noise[10:40] = 0  # 30 samples without it.
  noise[50, 1] = 0  # One frame of one sample.
  noise[..., 1] = np.where(noise.any(-1), 7.0, 0.0)
  noise[0, 0] = (-50.0, 7.0, 40.0)
  train.features['noise'] = noise
  dataset.splits['test'].features['noise'][5] = 0
  findings = check.inspect(dataset)

  found = modality(findings, 'noise')
  assert found.lengths['train'] == Lengths(shortest=1, median=2.0, longest=4, full=2)
  assert found.empty == {'train': 30, 'validation': 0, 'test': 1}
  # 300 samples, two of length 4, one of length 1, 297 of length 2; 30 of the latter are empty.
  frames = 2 * 4 + 1 + 267 * 2
  assert found.empty_frames['train'] == pytest.approx(1 / frames)
  assert found.empty_frames['test'] == 0
  observed = noise[noise.any(-1)]
  values = found.values
  assert values is not None
  assert values.frames == frames - 1 == len(observed)
  assert (values.low, values.high) == (-50.0, 40.0)
  assert values.mean == pytest.approx(observed.astype(np.float64).mean())
  assert values.std == pytest.approx(observed.astype(np.float64).std())
  assert values.constant == (1,)
  stds = observed.astype(np.float64).std(0)
  assert (values.widest, values.narrowest) == (0, 2)
  assert values.scale_ratio == pytest.approx(stds[0] / stds[2])
  assert 'constant' in topics(findings, 'note')
  assert '1 of 3 (position 1)' in text_of(findings, 'constant')
  assert '10 % in train, 0 % in validation, 0 % in test' in text_of(findings, 'missing')

  told = modality(findings, 'told').values
  assert told is not None
  assert told.mean == pytest.approx(train.features['told'].mean(), abs=1e-6)
  assert told.constant == ()
  assert modality(findings, 'told').lengths == {}


def test_zero_is_a_value_where_a_frame_is_one_number():
  spec = make_spec('binary', (ModalitySpec('age', 'vector', (1,)), ModalitySpec('pulse', 'sequence', (3, 1))))
  features = {
    'age': np.zeros((4, 1), np.float32),
    'pulse': np.array([[0, 1, 0], [1, 1, 1], [0, 0, 0], [2, 0, 0]], np.float32)[..., None],
    'pulse_length': np.array([3, 3, 3, 1], np.int32),
  }
  split = Split(np.array(list('abcd')), sample_keys('abcd'), features, np.array([0, 1, 0, 1], np.int32), {})
  findings = check.inspect(Dataset(spec, dict.fromkeys(SIZES, split), {}))
  age, pulse = findings.modalities
  assert age.empty['train'] == 0
  assert pulse.empty['train'] == 1
  assert pulse.empty_frames == {}
  assert pulse.values is not None
  assert pulse.values.frames == 7
  assert pulse.values.mean == pytest.approx(6 / 7)


def test_nan_is_reported_with_its_count(capsys):
  dataset = make()
  arrays = {n: {**s.features, 'id': s.ids, 'label': s.label} for n, s in dataset.splits.items()}
  arrays['train']['noise'][3, 0, :2] = np.nan
  arrays['test']['told'][0, 0] = np.inf
  findings = check.inspect(_assemble(dataset.spec, arrays))
  capsys.readouterr()
  assert modality(findings, 'noise').non_finite == 2
  assert modality(findings, 'told').non_finite == 1
  assert {a.text for a in advise(findings) if a.topic == 'NaN'} == {
    'noise holds 2 NaN or infinite values.',
    'told holds 1 NaN or infinite values.',
  }
  assert modality(findings, 'told').empty == {'train': 0, 'validation': 0, 'test': 1}


def test_a_modality_that_is_all_zero():
  dataset = make()
  for split in dataset.splits.values():
    split.features['noise'][:] = 0
  findings = check.inspect(dataset)
  assert modality(findings, 'noise').empty == SIZES
  texts = [a.text for a in advise(findings) if a.topic == 'missing' and a.kind == 'problem']
  assert texts == [f'noise is all zero in every {name} sample.' for name in SIZES]
  assert repeats(findings, 'noise') == {}
  assert verdict.level(findings.probes, findings.probes.modalities['noise']) == 'nothing'
  assert 'constant' not in topics(findings)

  for name in ('train', 'test'):
    dataset.splits[name].features['noise'][:] = make().splits[name].features['noise']
  dataset.splits['validation'].features['noise'][:100] = make().splits['validation'].features['noise'][:100]
  (found,) = (a for a in advise(check.inspect(dataset)) if a.topic == 'missing')
  assert found.kind == 'problem'
  assert '0 % in train, 50 % in validation, 0 % in test' in found.text


def test_use_of_tokens():
  spec = dataclasses.replace(small_data.SPEC, num_outputs=3)
  dataset = small_data.small_dataset(40, 20, 20, spec)
  for split in dataset.splits.values():
    split.features['text'][:] = 0
    split.features['text'][:, :4] = (2, 3, 1, 1)
    split.features['text_length'][:] = 4
  dataset.splits['train'].features['text'][0, 0] = 9
  dataset.splits['validation'].features['text'][:5, 0] = 11
  dataset.splits['test'].features['text'][3] = (1, 1, 1, 1, 0, 0)
  findings = check.inspect(dataset)
  tokens = modality(findings, 'text').tokens
  assert tokens is not None
  assert tokens.distinct == 3
  # The test sample of nothing but unknown words lacks the modality: it is counted below, not here.
  assert tokens.unknown == {'train': 0.5, 'validation': 0.5, 'test': 0.5}
  assert tokens.unseen == {'train': 0.0, 'validation': 5 / 40, 'test': 0.0}
  assert modality(findings, 'text').empty == {'train': 0, 'validation': 0, 'test': 1}
  assert '12 % of the validation tokens' in text_of(findings, 'unseen tokens')
  assert '50 % of the training tokens' in text_of(findings, 'unknown tokens')


def test_wild_scales_full_lengths_and_gaps_are_noted():
  dataset = make()
  for split in dataset.splits.values():
    split.features['told'][:, 2] *= 1e5
    split.features['noise'][:] = np.random.default_rng(len(split)).normal(size=(len(split), 4, 3))
    split.features['noise'][::2, 0] = 0
    split.features['noise_length'][:] = 4
  findings = check.inspect(dataset)
  values = modality(findings, 'told').values
  assert values is not None
  assert values.widest == 2
  assert 5e4 < values.scale_ratio < 2e5
  assert f'differ by a factor of {values.scale_ratio:,.0f} (largest at position 2' in text_of(findings, 'scale')
  assert text_of(findings, 'full length') == 'noise: all of the training samples fill all 4 frames.'
  assert text_of(findings, 'missing frames') == 'noise: 12 % of the training frames are all zero.'
  dataset.splits['train'].features['noise_length'][30:] = 3
  assert text_of(check.inspect(dataset), 'full length').startswith('noise: 30 of 300 (10 %) of the training samples')
  dataset.splits['train'].features['noise_length'][29:] = 3
  assert 'full length' not in topics(check.inspect(dataset))


# Repetitions.


def test_planted_duplicates_are_counted_and_named():
  dataset = make()
  train, validation, test = dataset.splits.values()
  for name in ('told', 'noise', 'noise_length'):
    test.features[name][[4, 9]] = train.features[name][[20, 30]]  # Whole samples.
    train.features[name][101] = train.features[name][100]
  validation.features['told'][:7] = train.features['told'][:7]  # One modality only.
  test.label[4], test.label[9] = train.label[20], (train.label[30] + 1) % 3
  train.label[101] = train.label[100]
  findings = check.inspect(dataset)

  assert repeats(findings, WHOLE) == {('train', 'train'): 1, ('train', 'test'): 2}
  assert repeats(findings, 'noise') == {('train', 'train'): 1, ('train', 'test'): 2}
  assert repeats(findings, 'told') == {('train', 'train'): 1, ('train', 'test'): 2, ('train', 'validation'): 7}
  (leak,) = (r for r in findings.repeats if r.what == WHOLE and r.second == 'test' and r.count)
  assert leak.examples == (('train0020', 'test0004'), ('train0030', 'test0009'))
  assert (findings.conflicts.groups, findings.conflicts.samples) == (1, 2)
  assert findings.conflicts.examples == (('train0030', 'test0009'),)
  assert (
    text_of(findings, 'leak')
    == '2 of 250 (0.8 %) of the test samples are also in train, for instance train0020 and test0004.'
  )
  assert 'told: 7 of 200 (4 %) of the validation samples' in text_of(findings, 'shared content')
  assert 'train0030 and test0009' in text_of(findings, 'contradicting labels')
  assert '1 of 300' in text_of(findings, 'repeated samples')
  assert {'leak', 'contradicting labels'} <= topics(findings, 'problem')


def test_three_examples_at_most_and_all_copies_counted():
  dataset = make()
  dataset.splits['train'].features['told'][10:20] = dataset.splits['train'].features['told'][10]
  (found,) = (r for r in check.inspect(dataset).repeats if r.what == 'told' and r.count)
  assert found.count == 9
  assert found.examples == tuple(('train0010', f'train00{i}') for i in (11, 12, 13))


def test_content_is_what_lies_inside_the_length():
  dataset = make()
  train, _, test = dataset.splits.values()
  train.features['noise'][0] = test.features['noise'][0] = 1.0
  train.features['noise_length'][0], test.features['noise_length'][0] = 2, 3
  assert repeats(check.inspect(dataset), 'noise') == {}
  test.features['noise_length'][0] = 2
  assert repeats(check.inspect(dataset), 'noise') == {('train', 'test'): 1}
  # Two numbers that are equal with different bytes, and two samples that lack the modality.
  train.features['told'][1], test.features['told'][1] = (0.0, 1, 1, 1, 1), (-0.0, 1, 1, 1, 1)
  train.features['told'][2:5] = test.features['told'][2] = 0
  assert repeats(check.inspect(dataset), 'told') == {('train', 'test'): 1}
  # Whole samples may repeat although both lack one modality.
  train.features['noise'][2], train.features['told'][0] = 0, 3.0
  test.features['noise'][2] = 0
  assert repeats(check.inspect(dataset), WHOLE) == {}
  train.features['noise'][0] = test.features['noise'][2] = 0
  test.features['told'][2] = 3.0
  assert repeats(check.inspect(dataset), WHOLE) == {('train', 'test'): 1}


def test_the_same_numbers_in_another_modality_are_another_sample():
  spec = make_spec('binary', (ModalitySpec('left', 'vector', (2,)), ModalitySpec('right', 'vector', (2,))))
  there, gone = np.array([[1, 2], [3, 4]], np.float32), np.zeros((2, 2), np.float32)
  one = Split(np.array(['a', 'b']), sample_keys('ab'), {'left': there, 'right': gone}, np.zeros(2, np.int32), {})
  other = dataclasses.replace(one, features={'left': gone, 'right': there})
  findings = check.inspect(Dataset(spec, {'train': one, 'validation': other, 'test': other}, {}))
  assert repeats(findings, WHOLE) == {('validation', 'test'): 2}


def test_repeated_ids():
  dataset = make()
  for name, split in dataset.splits.items():
    dataset.splits[name] = dataclasses.replace(split, ids=split.ids.astype('U20'))
  dataset.splits['test'].ids[0] = 'train0001'
  dataset.splits['train'].ids[8] = 'train0009'
  findings = check.inspect(dataset)
  assert findings.repeated_ids.count == 2
  assert findings.repeated_ids.examples == ('train0001', 'train0009')
  assert 'repeated ids' in topics(findings, 'problem')


# Labels.


def test_classes_absent_rare_and_unequal():
  dataset = make()
  train, validation, test = (dataset.splits[name].label for name in SIZES)
  train[:] = 0
  train[:100], train[100:105] = 1, 2
  validation[validation == 2] = 0
  test[0] = -1
  findings = check.inspect(dataset)
  assert findings.target.names == ('0', '1', '2')
  assert findings.target.counts['train'] == (195, 100, 5)
  assert findings.target.counts['validation'] == ((validation == 0).sum(), (validation == 1).sum(), 0)
  assert sum(findings.target.counts['test']) == 249
  assert findings.target.unusable == {'train': 0, 'validation': 0, 'test': 1}
  assert text_of(findings, 'absent class') == 'No validation sample is of class 2.'
  assert text_of(findings, 'rare class') == 'Fewer than 10 training samples are of class 2 (5).'
  assert '39.0 times as many' in text_of(findings, 'imbalance')
  assert 'is right in 65 % of them' in text_of(findings, 'imbalance')
  assert {'absent class', 'rare class', 'imbalance', 'unusable labels'} <= topics(findings, 'problem')
  assert 'imbalance' not in topics(check.inspect(make()))


def test_multilabel_rates():
  dataset = make('multilabel')
  train = dataset.splits['train'].label
  train[:] = 0
  train[:200, 0], train[:4, 1], train[:50, 3] = 1, 1, 1
  findings = check.inspect(dataset)
  assert findings.target.counts['train'] == (200, 4, 0, 50)
  assert findings.target.without['train'] == 100
  assert text_of(findings, 'absent class') == 'No train sample has label 2.'
  assert text_of(findings, 'rare class') == 'Fewer than 10 training samples have label 1 (4).'
  assert '100 of 300 (33 %)' in text_of(findings, 'no label')


def test_regression_labels():
  dataset = make('regression')
  dataset = dataclasses.replace(dataset, spec=dataclasses.replace(dataset.spec, label_range=(0.0, 10.0)))
  train = dataset.splits['train'].label
  train[:] = np.repeat([0.0, 4.0, 10.0], 100)
  train[-1], train[-2] = np.nan, 20.0
  findings = check.inspect(dataset)
  numbers = findings.target.numbers['train']
  values = np.repeat([0.0, 4.0, 10.0, 20.0], [100, 100, 98, 1])
  assert (numbers.low, numbers.median, numbers.high) == (0.0, 4.0, 20.0)
  assert numbers.mean == pytest.approx(values.mean())
  assert numbers.std == pytest.approx(values.std())
  assert (numbers.zeros, numbers.outside) == (100, 1)
  assert findings.target.edges == (0.0, 4.0, 8.0, 12.0, 16.0, 20.0)
  assert numbers.bins == (100, 100, 98, 0, 1)  # An edge belongs to the interval above it.
  assert findings.target.unusable['train'] == 1
  assert findings.probes.num_train == 299
  assert {'label range', 'unusable labels'} <= topics(findings, 'problem')
  assert '100 of 300 (33 %)' in text_of(findings, 'many zeros')
  assert 'Of the training labels, 33 % from 0 to 4, 33 % from 4 to 8, 33 % from 8 to 12' in ' '.join(
    check.describe(findings).split()
  )


@pytest.mark.parametrize('task', ['binary', 'regression', 'multilabel'])
def test_labels_that_shift_between_splits(task):
  dataset = make(task)
  assert 'label shift' not in topics(check.inspect(dataset))
  train, _, test = (dataset.splits[name].label for name in SIZES)
  if task == 'binary':
    train[:], test[:] = np.arange(300) % 2, np.arange(250) % 5 < 4
    expected = '0 is 50 % of train and 20 % of test.'
  elif task == 'regression':
    test += train.mean() - test.mean() + 0.4
    assert 'label shift' not in topics(check.inspect(dataset))
    test += 0.6
    expected = f'The mean label is {train.mean():.3g} in train and {train.mean() + 1:.3g} in test.'
  else:
    train[:, 2], test[:, 2] = 0, np.arange(250) % 5 == 0
    train[0, 2] = 1
    expected = '2 is 0 % of train and 20 % of test.'
  assert expected in {a.text for a in advise(check.inspect(dataset)) if a.topic == 'label shift'}


def test_shift_beyond_chance_only():
  dataset = make('binary', sizes={'train': 300, 'validation': 40, 'test': 40})
  dataset.splits['train'].label[:] = np.arange(300) % 2
  dataset.splits['validation'].label[:] = np.arange(40) < 28  # 70 %: 20 points, but only 2.4 standard errors.
  dataset.splits['test'].label[:] = np.arange(40) < 34
  texts = [a.text for a in advise(check.inspect(dataset)) if a.topic == 'label shift']
  assert len(texts) == 1
  assert texts[0].endswith('in test.') or texts[0].endswith('of test.')


def test_small_splits():
  findings = check.inspect(make(sizes={'train': 300, 'validation': 100, 'test': 30}))
  found = [(a.kind, a.text) for a in advise(findings) if a.topic == 'small split']
  assert found == [
    ('problem', 'There are only 30 test samples: a score of 50 % is uncertain by 18 points either way.'),
    ('note', 'There are only 100 validation samples: a score of 50 % is uncertain by 10 points either way.'),
  ]
  findings = check.inspect(make(sizes={'train': 19, 'validation': 100, 'test': 300}))
  assert findings.probes.baseline is None
  assert 'at least 20 training and 10 validation samples' in findings.probes.skipped
  assert 'there are 19 and 100.' in ' '.join(check.describe(findings).split())


# Probes.


@pytest.mark.parametrize('task', OUTPUTS)
def test_a_modality_that_tells_the_label_and_one_that_does_not(task):
  dataset = make(task)
  findings = check.inspect(dataset)
  probes = findings.probes
  told, noise = probes.modalities['told'], probes.modalities['noise']
  assert probes.baseline is not None
  assert probes.together is not None
  assert probes.metric == metrics.primary_metric(dataset.spec)[0]
  assert verdict.level(probes, told) == 'strong'
  assert verdict.level(probes, noise) == 'nothing'
  assert told.p == 0.001
  assert noise.p > 0.05
  assert verdict.level(probes, probes.together) == 'strong'
  for score in (told, noise, probes.baseline):
    assert score.low <= score.value <= score.high
  assert probes.baseline.order == (0.0 if task == 'regression' else 0.5)
  assert probes.baseline.p == 1.0

  train, validation = (dataset.splits[name].label for name in ('train', 'validation'))
  if task == 'regression':
    # The median of leave-one-out errors, which is the labels' own up to 1 / n.
    expected = pytest.approx(np.abs(validation - np.median(train)).mean(), rel=1e-4)
  elif task == 'multilabel':
    order = np.argsort(-train.mean(0))
    guesses = [np.isin(range(4), order[:k]) for k in range(5)]
    guess = max(guesses, key=lambda g: metrics.sample_scores(dataset.spec, np.tile(g - 0.5, (300, 1)), train).mean())
    expected = pytest.approx(metrics.sample_scores(dataset.spec, np.tile(guess - 0.5, (200, 1)), validation).mean())
    assert probes.perfect == pytest.approx(validation.any(1).mean())
  else:
    expected = (validation == np.bincount(train).argmax()).mean()
  assert probes.baseline.value == expected
  said = ' '.join(verdict.sentences(findings))
  assert 'noise alone' in said
  assert 'not distinguishable from guessing' in said
  assert 'strong.' in said
  assert {a.text for a in advise(findings) if a.topic == 'no signal'} == {
    'noise alone does not predict the target here.'
  }


@pytest.mark.parametrize('task', ['multiclass', 'regression'])
def test_no_probe_reads_the_test_split(task):
  dataset = make(task)
  before = check.inspect(dataset).probes
  test = dataset.splits['test']
  test.label[:] = np.random.default_rng(1).permutation(test.label)
  assert check.inspect(dataset).probes == before
  test.features['told'][:] = 0
  assert check.inspect(dataset).probes == before
  validation = dataset.splits['validation'].label
  validation[:] = np.random.default_rng(1).permutation(validation)
  assert check.inspect(dataset).probes.modalities['told'] != before.modalities['told']


def test_validation_labels_decide_nothing():
  dataset = make('multilabel')
  block = pooling.pooled(dataset.spec.modalities[0], dataset.splits['train'], dataset.splits['validation'])
  label = dataset.splits['train'].label
  expected, _ = probe.fit_predict(dataset.spec, block[0], label, block[1])
  half, _ = probe.fit_predict(dataset.spec, block[0], label, block[1][:50])
  np.testing.assert_allclose(half, expected[:50], atol=1e-12)


def test_a_modality_whose_lesson_does_not_hold_in_validation():
  dataset = make('binary')
  dataset.splits['validation'].features['told'][:, 0] *= -1
  findings = check.inspect(dataset)
  assert findings.probes.modalities['told'].value < 0.2
  assert 'what it shows in training does not hold in validation.' in ' '.join(verdict.sentences(findings))


def test_all_together_are_better_where_each_holds_a_part():
  dataset = make('regression')
  for split in dataset.splits.values():
    first = split.features['noise'][:, 0, 0]
    split.label[:] = split.features['told'][:, 1] + first
    split.features['noise'][:, 1:, 0] = 0
    split.features['noise'][:, 0, 1:] = first[:, None]
  probes = check.inspect(dataset).probes
  told, noise, together = *probes.modalities.values(), probes.together
  assert together is not None
  assert together.value < 0.8 * min(told.value, noise.value)
  assert together.order is not None
  assert together.order > 0.9


def test_labels_of_nobody_leave_nothing_to_find():
  dataset = make()
  for split in dataset.splits.values():
    split.label[:] = np.random.default_rng(len(split)).permutation(split.label)
  findings = check.inspect(dataset)
  assert text_of(findings, 'no signal') == 'No modality predicts the target, nor do all together.'
  assert 'no signal' in topics(findings, 'problem')
  # One that tells something is enough, whatever became of all together.
  signal = check.inspect(make()).probes
  mixed = dataclasses.replace(findings, probes=dataclasses.replace(signal, together=findings.probes.together))
  assert text_of(mixed, 'no signal') == 'noise alone does not predict the target here.'


def test_a_modality_that_gives_the_answer_away():
  dataset = make('regression')
  for split in dataset.splits.values():
    split.features['told'][:, 4] = split.label
  assert 'too good' in topics(check.inspect(dataset), 'problem')
  dataset = make()
  assert 'too good' not in topics(check.inspect(dataset))
  for split in dataset.splits.values():
    split.features['told'][:, :3] = np.eye(3)[split.label]
  assert (
    text_of(check.inspect(dataset), 'too good') == 'told alone predicts the target almost perfectly (100 % [98, 100]).'
  )


def test_a_perfect_score_of_few_samples_is_no_alarm():
  dataset = make(sizes={'train': 300, 'validation': 20, 'test': 20})
  for split in dataset.splits.values():
    split.features['told'][:, :3] = np.eye(3)[split.label]
  findings = check.inspect(dataset)
  assert findings.probes.modalities['told'].value == 1.0
  assert 'too good' not in topics(findings)


def test_order_shows_what_a_lopsided_label_hides():
  dataset = make('binary')
  rng = np.random.default_rng(3)
  for split in dataset.splits.values():
    split.label[:] = rng.random(len(split)) < 0.08
    split.features['told'][:, 0] = split.label + rng.normal(size=len(split))
  findings = check.inspect(dataset)
  told = findings.probes.modalities['told']
  assert verdict.level(findings.probes, told) == 'hint'
  assert told.order > 0.65
  assert told.p < 0.05
  assert 'in a better order than chance' in ' '.join(verdict.sentences(findings))


@pytest.mark.parametrize('task', ['regression', 'multiclass'])
def test_the_ridge_is_that_of_scikit_learn(task):
  from sklearn.linear_model import Ridge, RidgeCV

  dataset = make(task)
  rng = np.random.default_rng(0)
  x, new = rng.normal(size=(300, 12)), rng.normal(size=(50, 12))
  x[:, 0] += dataset.splits['train'].label
  label = dataset.splits['train'].label
  target = label[:, None] if task == 'regression' else np.eye(3)[label]
  centred = x - x.mean(0)
  strengths = np.sort(10.0 ** np.arange(3, -5, -1) * np.linalg.svd(centred)[1].__pow__(2).mean())
  # Its own leave-one-out chooses; for several targets by their sum, as here.
  reference = RidgeCV(alphas=strengths).fit(x, target)
  expected = reference.predict(new).reshape(50, -1)
  got, held_out = probe.fit_predict(dataset.spec, x, label, new)
  if task == 'regression':  # Ours also moves to the median of the held-out errors.
    got, held_out = got + expected.mean() - got.mean(), held_out + expected.mean() - got.mean()
  np.testing.assert_allclose(got, expected, atol=1e-8)
  for left_out in (0, 7):
    others = np.delete(np.arange(300), left_out)
    refit = Ridge(alpha=reference.alpha_).fit(x[others], target[others])
    np.testing.assert_allclose(held_out[left_out], refit.predict(x[[left_out]]).ravel(), atol=1e-8)


def test_leave_one_out_errors_choose_the_shift():
  rng = np.random.default_rng(0)
  label = rng.exponential(size=200).astype(np.float32)
  nothing = np.zeros((200, 1), np.float32)
  got, _ = probe.fit_predict(make_spec('regression'), nothing, label, nothing[:3])
  # Leaving a sample out moves the mean a little towards the others.
  held_out = (label.sum() - label) / 199
  np.testing.assert_allclose(got[:, 0], label.mean() + np.median(label - held_out), rtol=1e-6)
  assert abs(got[0, 0] - np.median(label)) < 0.01


def test_order_is_the_area_under_the_curve():
  rng = np.random.default_rng(0)
  prediction, label = rng.integers(0, 6, (60, 3)).astype(float), rng.integers(0, 3, 60)
  order, p = probe._order(prediction, np.eye(3)[label], correlation=False)
  assert order == pytest.approx(np.mean([metrics.auroc(prediction[:, c], label == c) for c in range(3)]))
  assert 0.05 < p <= 1
  order, p = probe._order(prediction[:, :1], prediction[:, 1:2], correlation=True)
  assert order == pytest.approx(np.corrcoef(prediction[:, 0], prediction[:, 1])[0, 1])
  order, p = probe._order(prediction, np.eye(3)[np.zeros(60, int)], correlation=False)
  assert order is None
  assert p == 1


def test_shuffled_labels_give_every_p_value_equally_often():
  rng = np.random.default_rng(0)
  p = [
    probe._order(rng.normal(size=(30, 1)), rng.integers(0, 2, (30, 1)).astype(float), correlation=False)[1]
    for _ in range(100)
  ]
  assert 0.35 < np.mean(p) < 0.65
  assert np.mean(np.array(p) <= 0.2) < 0.35


def test_too_many_training_samples_are_left_out_and_it_is_said():
  dataset = make()
  probes = probe.probe(dataset.spec, dataset.splits['train'], dataset.splits['validation'], max_train=120)
  assert (probes.num_train, probes.num_left_out) == (120, 180)
  findings = dataclasses.replace(check.inspect(dataset), probes=probes)
  assert '180 training samples were left out to save time' in ' '.join(check.describe(findings).split())


# Pooling.


def test_pooled_sequences_by_hand():
  dataset = make(sizes={'train': 40, 'validation': 30, 'test': 2})
  train = dataset.splits['train']
  train.features['noise'][4] = 0  # Missing.
  train.features['noise'][train.features['noise_length'] == 3, 1] = 0  # A gap.
  train.features['noise'][:, 3] = 100  # Beyond every length.
  rows = []
  for x, length in zip(train.features['noise'], train.features['noise_length'], strict=True):
    inside = x[:length]
    seen = inside[inside.any(1)]
    if not len(seen):
      rows.append(np.zeros(21))
      continue
    parts = [seen.mean(0), seen.std(0), seen.max(0)]
    for k in range(4):
      part = inside[length * k // 4 : length * (k + 1) // 4]
      part = part[part.any(1)]
      parts.append(part.mean(0) if len(part) else seen.mean(0))
    order = [parts[0], *parts[3:], *parts[1:3]]
    rows.append(np.concatenate(order))
  np.testing.assert_allclose(pooling._pool_sequence(dataset.spec.modalities[1], train), rows, atol=1e-5)


def test_pooled_images_by_hand():
  spec = ModalitySpec('face', 'image', (40, 7, 2))
  images = np.random.default_rng(0).random((3, 40, 7, 2)).astype(np.float32)
  split = Split(np.array(list('abc')), sample_keys('abc'), {'face': images}, np.zeros(3), {})
  got = pooling._pool_image(spec, split).reshape(3, 16, 7, 2)
  for k in range(16):
    expected = images[:, k * 40 // 16 : (k + 1) * 40 // 16].mean(1)
    np.testing.assert_allclose(got[:, k], expected, rtol=1e-5)


def test_pooled_tokens_are_counts_of_what_training_has():
  dataset = small_data.small_dataset(30, 12, 3)
  text = dataset.spec.modalities[1]
  train, validation = dataset.splits['train'], dataset.splits['validation']
  for split in (train, validation):
    split.features['text'][:], split.features['text_length'][:] = (2, 3, 1, 0, 0, 0), 3
  train.features['text'][:10, :3] = (2, 2, 5)
  train.features['text'][29, 1] = 7  # Once in training: left out.
  validation.features['text'][0, :3] = (9, 7, 1)  # Nothing that training knows well.
  bags, new = pooling._bags_of_words(text, train, validation)
  assert bags.shape == (30, 3)
  weights = np.log(31 / (1 + np.array([30, 19, 10]))) + 1  # Ids 2, 3 and 5.
  first = np.array([(1 + np.log(2)) * weights[0], 0, weights[2]])
  np.testing.assert_allclose(bags[0], first / np.linalg.norm(first), rtol=1e-5)
  assert not new[0].any()
  np.testing.assert_allclose(new[1], bags[20], rtol=1e-6)


def test_fewer_samples_than_features_lose_nothing():
  rng = np.random.default_rng(0)
  x, new = rng.normal(size=(50, 400)).astype(np.float32), rng.normal(size=(20, 400)).astype(np.float32)
  small, small_new = pooling.reduced(x, new, 100)
  assert small.shape == (50, 50)
  np.testing.assert_allclose(small @ small.T, x @ x.T, rtol=1e-3, atol=1e-2)
  np.testing.assert_allclose(small_new @ small.T, new @ x.T, rtol=1e-3, atol=1e-2)


def test_reduction_keeps_the_directions_that_vary_most():
  rng = np.random.default_rng(0)
  x = (rng.normal(size=(300, 10)) @ rng.normal(size=(10, 200)) * 5 + rng.normal(size=(300, 200))).astype(np.float32)
  small, _ = pooling.reduced(x, x[:1], 12)
  assert small.shape == (300, 12)
  assert (small**2).sum() > 0.98 * (np.linalg.svd(x)[1][:12] ** 2).sum()


def test_samples_without_the_modality_pool_to_zeros():
  dataset = make()
  for name in ('train', 'validation'):
    dataset.splits[name].features['told'][:20] = 0
  dataset.splits['train'].features['told'][20:, 1] += 1000
  train, validation = pooling.pooled(dataset.spec.modalities[0], dataset.splits['train'], dataset.splits['validation'])
  assert not train[:20].any()
  assert not validation[:20].any()
  np.testing.assert_allclose(train[20:].mean(0), 0, atol=1e-4)
  np.testing.assert_allclose(train[20:].std(0), 1, atol=1e-3)


def test_every_kind_goes_through():
  findings = check.inspect(small_data.small_dataset())
  assert set(findings.probes.modalities) == {'audio', 'text', 'face', 'pose'}
  assert modality(findings, 'face').empty == {'train': 0, 'validation': 0, 'test': 0}
  assert max(map(len, check.describe(findings).splitlines())) <= WIDTH


# Words.


@pytest.mark.parametrize(
  ('metric', 'value', 'low', 'order', 'p', 'expected'),
  [
    ('accuracy', 0.80, 0.75, 0.9, 0.001, 'strong'),  # 0.6 of the way from 0.5 to 1.
    ('accuracy', 0.74, 0.70, 0.9, 0.001, 'useful'),
    ('accuracy', 0.59, 0.51, 0.6, 0.001, 'weak'),
    ('accuracy', 0.59, 0.49, 0.6, 0.04, 'hint'),
    ('accuracy', 0.59, 0.49, 0.6, 0.06, 'nothing'),
    ('mae', 0.9, 0.8, 0.61, 0.001, 'strong'),
    ('mae', 0.9, 0.8, 0.31, 0.001, 'useful'),
    ('mae', 0.9, 0.8, 0.2, 0.01, 'weak'),
    ('mae', 0.2, 0.1, 0.2, 0.2, 'nothing'),
  ],
)
def test_levels(metric, value, low, order, p, expected):
  baseline = Score(0.5, 0.45, 0.55, 0.5, None, None, 1.0)
  probes = Probes('', metric, metric != 'mae', baseline=baseline)
  assert verdict.level(probes, Score(value, low, 2 * value - low, order, None, None, p)) == expected


@pytest.mark.parametrize('task', OUTPUTS)
def test_the_text_fits_and_names_everything(task):
  findings = check.inspect(make(task))
  text = check.describe(findings)
  lines = text.splitlines()
  assert max(map(len, lines)) <= WIDTH <= 110
  assert lines[0].startswith('planted (synthetic data): 300 train, 200 validation, 250 test samples; to predict: ')
  assert 'a linear probe on pooled features' in ' '.join(text.split())
  for name in ('told', 'noise', 'validation', 'Identical content', 'In short'):
    assert name in text
  for line in verdict.sentences(findings):
    assert line in ' '.join(text.split())
  for found in advise(findings):
    assert found.text in ' '.join(text.split())


def test_nothing_wrong_is_said():
  dataset = make()
  for split in dataset.splits.values():
    noise = split.features['noise']
    noise[:, 0, :] = split.features['told'][:, :3] + np.random.default_rng(0).normal(size=(len(split), 3))
  assert check.describe(check.inspect(dataset)).endswith('\n\nNothing looks wrong.\n')


# The command.


@pytest.fixture
def loading(monkeypatch):
  """Replaces the loader; gives the calls it got."""
  calls = []

  def load_dataset(name, **options):
    calls.append((name, options))
    print('preparing')
    return make()

  monkeypatch.setattr(check, 'load_dataset', load_dataset)
  return calls


def test_command_reads_a_folder_or_a_name(loading, capsys):
  assert check.main(['some/dir', '--tfds_dir=here']) == 0
  assert 'In short' in capsys.readouterr().out
  assert check.main(['--name=digits', '--manual_dir', 'there']) == 0
  assert loading == [
    ('folder', {'tfds_dir': 'here', 'folder': 'some/dir'}),
    ('digits', {'tfds_dir': None, 'manual_dir': 'there'}),
  ]


def test_json_is_nothing_but_json(loading, capsys):
  assert check.main(['dir', '--json']) == 0
  out, err = capsys.readouterr()
  found = json.loads(out)
  assert err == 'preparing\n'
  assert found['sizes'] == SIZES
  assert found['probes']['modalities']['told']['order_low'] is None
  assert found['modalities'][1]['lengths']['train']['longest'] == 3
  assert found['advice'][0]['topic'] == 'no signal'


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ([], 'expected a folder of your own data, or --name=NAME of a data set; see --help'),
    (['a', '--name=digits'], 'expected a folder of your own data, or --name=NAME of a data set; see --help'),
    (['a', 'b'], "unexpected argument 'b'; expected one folder"),
    (['a', '--tfdsdir=b'], 'unknown flag --tfdsdir; did you mean --tfds_dir?'),
    (['a', '--manual_dir=b'], '--manual_dir goes with --name; your own folder holds its files itself'),
    (['--name'], 'argument --name: expected one argument; see --help'),
    (['--name=digit'], "unknown data set 'digit'; did you mean digits?"),
  ],
)
def test_wrong_commands_are_refused_in_one_line(arguments, message, capsys):
  assert check.main(arguments) == 2
  assert capsys.readouterr() == ('', f'dream_jax: {message}\n')


def test_help(capsys):
  assert check.main(['--help']) == 0
  assert capsys.readouterr().out == check.USAGE + '\n'


@pytest.mark.parametrize(
  ('error', 'code', 'message'),
  [
    (UserError('no\n  such'), 2, 'dream_jax: no such\n'),
    (OSError(28, 'No space left on device', '/x'), 2, 'dream_jax: No space left on device: /x; make room there'),
    (KeyboardInterrupt(), 130, '\ninterrupted\n'),
  ],
)
def test_exit_codes(error, code, message, monkeypatch, capsys):
  def fail(*_, **__):
    raise error

  monkeypatch.setattr(check, 'load_dataset', fail)
  assert check.main(['dir']) == code
  assert capsys.readouterr().err.startswith(message)
  monkeypatch.setattr(check, 'inspect', lambda _: 1 / 0)
  monkeypatch.setattr(check, 'load_dataset', lambda *_, **__: None)
  with pytest.raises(ZeroDivisionError):  # A fault of ours is no fault of the user's.
    check.main(['dir'])


def test_a_fault_of_the_machine_is_not_called_the_users(monkeypatch):
  def fail(*_, **__):
    raise OSError(5, 'Input/output error')

  monkeypatch.setattr(check, 'load_dataset', fail)
  with pytest.raises(OSError, match='Input/output'):
    check.main(['dir'])


def test_own_folder_from_file_to_verdict(tmp_path, capsys):
  rng = np.random.default_rng(0)
  stress = rng.integers(0, 2, 400)
  eeg = rng.normal(size=(400, 6, 2)).astype(np.float32)
  pose = rng.normal(size=(400, 3)).astype(np.float32)
  pose[:, 0] += 4 * stress
  eeg[7, 0, 0] = np.nan
  data = tmp_path / 'data'
  data.mkdir()
  np.savez(data / 'all.npz', stress=stress, eeg=eeg, pose=pose)
  (data / 'dataset.toml').write_text(
    'name = "mine"\ntask = "binary"\nlabel = "stress"\nclasses = ["calm", "tense"]\n'
    'splits = { train = 0.5, validation = 0.25, test = 0.25 }\n[modalities]\neeg = "sequence"\npose = "vector"\n'
  )
  assert check.main([str(data), f'--tfds_dir={tmp_path / "tfds"}']) == 0
  text = capsys.readouterr().out
  assert 'mine (real data)' in text
  assert 'eeg holds 1 NaN or infinite values.' in text
  assert 'tense' in text
  assert 'pose alone reaches' in text
  assert check.main([str(tmp_path / 'nothing')]) == 2
  assert 'does not exist' in capsys.readouterr().err


def test_importing_and_inspecting_needs_neither_jax_nor_tensorflow(root):
  program = (
    'import sys; sys.path.insert(0, "tests"); import small_data; from dream_jax.data import check\n'
    'check.describe(check.inspect(small_data.small_dataset()))\n'
    'print(sorted({"jax", "flax", "tensorflow", "ml_collections"} & set(sys.modules)))'
  )
  done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, cwd=root, check=True)
  assert done.stdout == '[]\n'


def test_split_selection():
  split = make().splits['train']
  some = content.select(split, split.label == 1)
  assert len(some) == (split.label == 1).sum()
  assert (some.label == 1).all()
  np.testing.assert_array_equal(some.features['told'], split.features['told'][split.label == 1])
