"""The probes of the check: which modality tells the label, and how sure that is."""

import dataclasses

import numpy as np
import pytest
from planted_data import OUTPUTS, make, make_spec, text_of, topics

from dream_jax.datacheck import check, pooling, probe, verdict
from dream_jax.datacheck.advice import advise
from dream_jax.evaluation import metrics


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


@pytest.mark.parametrize('split', ['train', 'validation'])
@pytest.mark.parametrize(
  ('task', 'label', 'what'),
  [
    ('binary', 1, 'one class, 1'),
    ('multiclass', 2, 'one class, 2'),
    ('regression', 2.5, 'one label, 2.5'),
    ('multilabel', 0, 'no label at all'),
    ('multilabel', (1, 0, 0, 1), 'one combination of labels'),
  ],
)
def test_nothing_is_said_of_modalities_where_labels_do_not_differ(task, label, what, split):
  dataset = make(task)
  dataset.splits[split].label[:] = label
  findings = check.inspect(dataset)
  name = {'train': 'training'}.get(split, split)
  assert findings.probes.skipped == f'their worth cannot be told: {name} holds {what}'
  assert not topics(findings) & {'too good', 'no signal'}
  text = ' '.join(check.describe(findings).split())
  assert f'Modalities were not tried: their worth cannot be told: {name} holds {what}.' in text
  if task == 'regression':
    said = 'training' if split == 'train' else split
    assert f'All {said} labels are 2.5.' in text


def test_where_guessing_is_nearly_perfect_a_modality_has_to_beat_it():
  dataset = make('binary', sizes={'train': 300, 'validation': 400, 'test': 20})
  for split in dataset.splits.values():
    split.label[:] = 0
    split.label[:2] = 1
  findings = check.inspect(dataset)
  assert findings.probes.baseline.value > 0.99
  assert findings.probes.modalities['noise'].value > 0.99
  assert 'too good' not in topics(findings)
  for split in dataset.splits.values():
    split.features['told'][:, 0] = 100 * split.label
  assert 'told alone' in text_of(check.inspect(dataset), 'too good')


def test_labels_at_the_end_of_float32_have_errors_too():
  dataset = make('regression')
  for split in dataset.splits.values():
    split.label[:] = np.sign(split.label - 5) * 3e38
    split.features['told'][:, 0] *= 4
  findings = check.inspect(dataset)
  assert all(np.isfinite((s.value, s.low, s.high)).all() for s in findings.probes.modalities.values())


def test_what_is_perfect_by_guessing_cannot_be_told_apart():
  baseline = probe.Score(0.8, 0.7, 0.9, 0.5, None, None, 1.0)
  probes = probe.Probes('', 'f1_samples', True, perfect=0.8, baseline=baseline, modalities={'told': baseline})
  for score, level in ((baseline, 'nothing'), (dataclasses.replace(baseline, p=0.01, low=0.85), 'hint')):
    assert verdict.level(probes, score) == level
  findings = dataclasses.replace(
    check.inspect(make('multilabel')), probes=dataclasses.replace(probes, together=baseline)
  )
  assert 'more cannot be told: guessing the most frequent labels scores as well as faultless answers would (80 %).' in (
    ' '.join(verdict.sentences(findings))
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
