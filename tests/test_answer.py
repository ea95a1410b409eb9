"""The sentences of a report say what its figures say, and what is not in them."""

import html

import pytest
from small_runs import small_recipe

from dream_jax import api
from dream_jax.experiments.results_file import _regime
from dream_jax.models.registry import find_method
from dream_jax.report import answer
from dream_jax.report.sections import _snippet
from dream_jax.workdir import run_folders

_INJECTED = 'complete training data; injected modality'


def _entry(title, validation, **rest):
  return {'title': title, 'seeds': [0, 1, 2], 'validation_score': validation, 'train_regime': _INJECTED, **rest}


def _protocol(values, names, rates=None):
  conditions = [{'name': n, 'rate': r} for n, r in zip(names, rates or [None] * len(names), strict=True)]
  return {'conditions': conditions, 'metrics': {'accuracy': values}}


def _results(**rest):
  complete = {
    **_protocol([[0.9, 0.9, 0.9]], ['complete']),
    'summary': {'accuracy': {'mean': 0.9, 'std': 0.0, 'ci95': [0.89, 0.91], 'ci95_two_way': [0.87, 0.93]}},
  }
  subset = _protocol([[0.5, 0.6, 0.55], [0.9, 0.89, 0.91], [0.92, 0.93, 0.94]], ['face+pose', 'text+pose', 'text+face'])
  zeros = _protocol([[0.9, 0.9, 0.9], [0.7, 0.7, 0.7]], ['0.0', '0.7'], [0.0, 0.7])
  dream = _entry('DREAM', [0.8, 0.8, 0.8])
  dream['protocols'] = {'complete': complete, 'subset/zeros': subset, 'modality/zeros': zeros}
  return {
    'dataset': 'made',
    'data_kind': 'real',
    'task': 'multiclass',
    'modalities': ['text', 'face', 'pose'],
    'primary_metric': 'accuracy',
    'higher_is_better': True,
    'num_test': 200,
    'methods': {'dream': dream, 'late': _entry('Late', [0.7, 0.9, 0.7], protocols={})},
    'comparisons': [
      {'a': 'dream', 'b': 'late', 'protocol': p, 'metric': 'accuracy', 'difference': d, 'p_holm': q}
      for p, d, q in (('complete', 0.1, 0.01), ('modality/zeros', -0.2, 0.02), ('subset/zeros', 0.1, 0.4))
    ],
    **rest,
  }


def _said(results, question):
  return ' '.join(answer.sentences(results)[question])


def test_the_best_on_validation_is_named_with_its_verdicts():
  said = _said(_results(), 'Which method to use')
  assert said.startswith('Use DREAM.')
  assert 'best of 2 methods: Accuracy 80.0 %; next Late, 76.7 %' in said
  assert 'better than Late under 1 of 3 protocols, worse under 1, not told apart under 1' in said


def test_verdicts_turn_where_a_control_is_the_best():
  results = _results()
  results['methods']['late']['validation_score'] = [0.95, 0.95, 0.95]
  results['comparisons'][2]['p_holm'] = 0.01
  said = _said(results, 'Which method to use')
  assert said.startswith('Use Late.')
  assert 'better than DREAM under 1 of 3 protocols, worse under 2' in said


@pytest.mark.parametrize(
  'other',
  [{'train_regime': 'nothing injected'}, {'uses_oracle': ['mask']}, {'modality': 'face'}, {'validation_score': None}],
)
def test_what_was_selected_otherwise_or_cannot_be_used_is_no_choice(other):
  results = _results()
  results['methods']['late'] |= {'validation_score': [1.0, 1.0, 1.0]} | other
  assert 'only method' in _said(results, 'Which method to use')


def test_modalities_are_ranked_by_what_losing_them_costs():
  text, face, pose, _ = answer.sentences(_results())['Which modalities matter']
  assert text == 'Without text Accuracy falls by 35.0 ± 12.4 points: it matters.'
  assert pose == 'Without pose Accuracy gets better by 3.0 ± 2.5 points: it does harm.'
  assert face == 'Without face Accuracy falls by 0.0 ± 2.5 points, which is not told apart from nothing.'


def test_regression_rises_where_it_gets_worse():
  results = _results(primary_metric='mae', higher_is_better=False, task='regression')
  for protocol in results['methods']['dream']['protocols'].values():
    protocol['metrics'] = {'mae': [[1 - v for v in row] for row in protocol['metrics']['accuracy']]}
    protocol.pop('summary', None)
  results['methods']['dream']['validation_score'] = [-0.2, -0.2, -0.2]
  results['methods']['late']['validation_score'] = [-0.3, -0.3, -0.3]
  assert 'MAE 0.200; next Late, 0.300' in _said(results, 'Which method to use')
  assert 'Without text MAE rises by 0.350' in _said(results, 'Which modalities matter')


def test_what_was_not_measured_is_said_with_the_way_to_measure_it():
  results = _results(data_kind='synthetic')
  dream = results['methods']['dream']
  del dream['protocols']['subset/zeros']
  dream['seeds'] = [0]
  dream['native'] = {'modalities': {'face': {'without': {'count': 50}}, 'text': {'without': {'count': 0}}}}
  assert "add 'subset/zeros'" in _said(results, 'Which modalities matter')
  said = _said(results, 'What is not known')
  assert '± 3.0 points' in said
  assert 'config.num_seeds to 5' in said
  assert "add 'modality/noise', 'modality/swap'" in said
  assert '25 % lack face from the start' in said
  assert 'lack text' not in said
  assert 'real data: these are not' in said
  assert 'at 0.7 it is 70.0 %' in _said(results, 'How it holds up')


def test_one_modality_fuses_nothing_and_nothing_trained_says_nothing():
  assert 'nothing to fuse' in _said(_results(modalities=['text']), 'Which modalities matter')
  assert answer.sentences(_results(methods={})) == {}


def test_a_model_that_is_loaded_is_the_best_on_validation_and_that_is_said(monkeypatch, capsys):
  results = _results(mode='study', regimes=['complete', 'imbalanced/0.5'], runs=[{'method': 'dream'}])
  for name, entry in results['methods'].items():
    entry |= {'method': name, 'regime': 'complete'}
  results['methods']['late@imbalanced/0.5'] = {
    **_entry('Late', [0.9, 0.9, 0.9]),
    'method': 'late',
    'regime': 'imbalanced/0.5',
  }
  monkeypatch.setattr(run_folders, 'results_of', lambda _: results)
  assert api._best('runs/made', None) == 'dream'
  assert capsys.readouterr().err == (
    'runs/made: dream (0.8) is the best on validation, next late (0.7667); method=... takes another\n'
  )
  assert api._best('runs/made', 'imbalanced/0.5') == 'late'
  assert capsys.readouterr().err == ''


def test_an_injection_of_its_own_is_another_validation():
  recipe = small_recipe()
  of_recipe, own = (_regime(find_method(name), 'complete', recipe) for name in ('dream', 'dream[inject.rate=0.2]'))
  assert 'up to 0.2' in own
  assert own != of_recipe


def test_modalities_stand_side_by_side_with_what_each_is_worth():
  results = _results()
  dream = results['methods']['dream']
  dream['contribution'] = {'complete': {'conditions': ['complete'], 'contributions': [[0.9, 0.2, 0.1]]}}
  subset = dream['protocols']['subset/zeros']
  subset['conditions'].append({'name': 'text', 'rate': None})
  subset['metrics']['accuracy'].append([0.8, 0.8, 0.8])
  alone = _protocol([[0.7, 0.7, 0.7]], ['complete'])
  results['methods']['unimodal/face'] = {
    **_entry('Only face', [0.9]),
    'modality': 'face',
    'protocols': {'complete': alone},
  }
  assert answer.modality_table(results).rows == (
    ('text', '0.900', '80.0 ± 0.0', '–', '35.0 ± 12.4'),
    ('face', '0.200', '–', '70.0 ± 0.0', '0.0 ± 2.5'),
    ('pose', '0.100', '–', '–', '-3.0 ± 2.5'),
  )
  assert answer.modality_table(_results(modalities=['text'])) is None


def test_lines_to_paste_name_the_workdir_the_method_and_the_modalities():
  said = html.unescape(_snippet(_results(), 'runs/my "data"'))
  assert """dream_jax.load('runs/my "data"', method='dream')""" in said
  assert "{'text': ..., 'face': ..., 'pose': ...}" in said
  assert _snippet(_results(methods={}), 'runs/x') == ''
