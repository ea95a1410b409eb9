"""Every field of the config, whatever is written into it: it is used for what it says, or one line names the field."""

import math
import subprocess
import sys
import types
import typing

import pytest

from dream_jax.cli import flags
from dream_jax.config.default import get_default
from dream_jax.config.recipe import Recipe, recipe_from_config
from dream_jax.errors import UserError
from dream_jax.missingness.missing import FILLS
from dream_jax.settings import Rule, rule_of, setting, walk

_FIELDS = {path: (hint, rule_of(field)) for path, hint, field in walk(Recipe) if field is not None}
_NUMBERS = [path for path, (hint, _) in _FIELDS.items() if hint in (int, float)]
_TUPLES = [path for path, (hint, _) in _FIELDS.items() if typing.get_origin(hint) is tuple]
_BOOLS = [path for path, (hint, _) in _FIELDS.items() if hint is bool]
_WORDS = [p for p, (hint, _) in _FIELDS.items() if hint is str or typing.get_origin(hint) is typing.Literal]
_PLACES = [path for path, (hint, _) in _FIELDS.items() if typing.get_origin(hint) is types.UnionType]

# Of what the tests below write into every field, what is meant to be possible.
_ZERO_IS_MEANT = {
  'config.seed',
  'config.model.max_tokens',
  'config.model.dropout',
  'config.model.head_dropout',
  'config.model.sharpness',
  'config.model.gate_threshold',
  *(f'config.losses.{name}' for name in ('unimodal', 'coalition', 'recognition', 'frames')),
  *(f'config.losses.{name}' for name in ('reconstruction', 'confidence')),
  'config.inject.rate',
  'config.train_missing.rate',
  'config.optimizer.weight_decay',
  'config.optimizer.warmup_fraction',
  'config.optimizer.average_decay',
  'config.train.eval_batch_size',
  'config.train.checkpoint_seconds',
  'config.study.search.points',
  'config.suite.divided_below',
  'config.suite.margin',
  'config.data.division',
  'config.mesh.seed',
}
_MINUS_ONE_IS_MEANT = {'config.mesh.seed', 'config.mesh.data'}
_EMPTY_IS_MEANT = {
  'config.controls',
  'config.protocols',
  'config.study.methods',
  'config.study.search.fields',
  'config.train_missing.rates',
  'config.train_missing.kept',
  'config.suite.data',
  'config.suite.folders',
  'config.train_missing.parts',
  'config.inject.parts',
}
# Of these only the data set knows the names.
_NAMES_OF_THE_DATA = {
  'config.train_missing.kept',
  'config.data.name',
  'config.name',
  'config.compile_cache',
  'config.suite.data',
  'config.suite.folders',
}


def _recipe(path, value):
  """The recipe of the default config with this value of a field, as a config file or a `config.json` might have it."""
  config = get_default().to_dict()
  node = config
  *groups, name = path.removeprefix('config.').split('.')
  for group in groups:
    node = node[group]
  node[name] = value
  return recipe_from_config(config)


def _refuses(path, value):
  with pytest.raises(UserError) as caught:
    _recipe(path, value)
  message = str(caught.value)
  assert '\n' not in message
  assert message.startswith(path), message
  assert any(word in message for word in ('expected', 'did you mean', 'known:', 'empty')), message
  assert len(message) < 600


def test_fields_are_found():
  assert len(_FIELDS) > 60
  assert {'config.seed', 'config.model.width', 'config.study.search.points', 'config.mesh.data'} <= set(_NUMBERS)
  every = {*_NUMBERS, *_TUPLES, *_BOOLS, *_WORDS, *_PLACES}
  assert set(_FIELDS) - every == {'config.data.options', 'config.suite.options'}


@pytest.mark.parametrize('path', _FIELDS)
def test_every_field_has_a_comment(path):
  assert _FIELDS[path][1].comment


@pytest.mark.parametrize('path', _NUMBERS)
def test_numbers(path):
  rule = _FIELDS[path][1]
  assert rule.least is not None
  assert rule.most is not None or rule.below is not None
  for value in (math.nan, math.inf, -math.inf, 1e39, -1e39, 10**20, 10**5000, -7, True, 'many', None, (), [1], {}):
    _refuses(path, value)
  for value, meant in ((0, _ZERO_IS_MEANT), (-1, _MINUS_ONE_IS_MEANT)):
    if path not in meant:
      _refuses(path, value)
    elif path not in ('config.mesh.seed', 'config.mesh.data', 'config.train_missing.rate'):
      _recipe(path, value)


@pytest.mark.parametrize('path', _NUMBERS)
def test_numbers_on_the_command_line(path, root):
  for text in ('nan', 'inf', '-7', '1e20', '1e3.5', '', 'many', '1' * 5000):
    with pytest.raises(UserError) as caught:
      recipe_from_config(flags.parse(['main', f'--config={root}/configs/npz.py', f'--{path}={text}']).config)
    message = str(caught.value)
    assert path in message
    assert '\n' not in message
    assert len(message) < 300


@pytest.mark.parametrize('path', _BOOLS)
def test_switches(path):
  for value in (0, 1, 0.0, math.nan, 'True', None, ()):
    _refuses(path, value)


@pytest.mark.parametrize('path', [*_WORDS, *_PLACES])
def test_words(path):
  hint, rule = _FIELDS[path]
  for value in (3, 0.5, math.nan, True, ('a',), {}, b'x'):
    _refuses(path, value)
  if path not in _PLACES:
    _refuses(path, None)
  for text in ('a\0b', 'a\ud800b'):
    _refuses(path, text)
  if path in _PLACES:
    _refuses(path, '')
  elif hint is not str or rule.choices or path == 'config.model.name':
    for text in ('', 'no such word'):
      _refuses(path, text)
  else:
    assert path in _NAMES_OF_THE_DATA


@pytest.mark.parametrize('path', _TUPLES)
def test_tuples(path):
  for value in ('word', 3, None, {}, math.nan, (None,), ({},), (math.nan,), (('a', 'b', 'c', 'd', 'e'),), (True,)):
    _refuses(path, value)
  if path not in _EMPTY_IS_MEANT:
    _refuses(path, ())
  if _FIELDS[path][0] == tuple[str, ...] and path not in _NAMES_OF_THE_DATA:
    for value in (('',), ('no such word',), (1,), (('a',),), ('a\0',)):
      _refuses(path, value)


@pytest.mark.parametrize(
  ('path', 'value'),
  [
    ('config.controls', ('concat', 'concat')),
    ('config.study.methods', ('late', 'concat', 'late')),
    ('config.protocols', ('modality/zeros', 'modality/zeros')),
    ('config.study.regimes', ('complete', 'complete')),
    ('config.study.regimes', ('modality/nan',)),
    ('config.study.regimes', ('modality/inf',)),
    ('config.study.regimes', ('imbalanced/1.5/text',)),
    ('config.study.regimes', ('modality/-0.1',)),
    ('config.controls', ('dream[model.sharpness=nan]',)),
    ('config.controls', ('dream[model.sharpness=1e999]',)),
    ('config.study.methods', ('dream[losses.unimodal=-1.0]',)),
    ('config.study.methods', ("dream[inject.fills=('ones',)]",)),
    ('config.study.methods', ('dream[model.width=10**9]',)),
    ('config.study.methods', ('dream[model.name=concat]',)),
    ('config.plan.devices', (0,)),
    ('config.plan.devices', (1, 10**9)),
    ('config.train_missing.rates', (('text', math.nan),)),
    ('config.train_missing.rates', (('text', 1.0),)),
    ('config.train_missing.rates', (('text', 0.5),)),
    ('config.train_missing.kept', ('text',)),
    ('config.train_missing.rate', 0.5),
    ('config.train_missing.fills', ('noise',)),
    ('config.inject.fills', ('zeros', 'ones')),
    ('config.inject.rate', 0.99999999999),
    ('config.optimizer.learning_rate', 1e-50),
    ('config.model.gate_temperature', 1e-40),
    ('config.seed', 2**31 - 5),
    ('config.study.search.points', 3),
    ('config.study.search.fields', (('model.width', 'linear', 1.0, 2.0),)),
    ('config.study.search.fields', (('model.dropout', 'linear', 0.0, math.nan),)),
    ('config.study.search.fields', (('model.dropout', 'linear', 0.0, 1.5),)),
    ('config.study.search.fields', (('model.dropout', 'linear', 0.5, 0.1),)),
    ('config.study.search.fields', (('model.dropout', 'log', 0.0, 0.1),)),
    ('config.study.search.fields', (('model.dropout', 'cubic', 0.1, 0.2),)),
    ('config.study.search.fields', (('optimizer.learning_rate', 'log', 1e-3, math.inf),)),
    ('config.study.search.fields', (('inject.rate', 'linear', 0.1, 0.2), ('inject.rate', 'linear', 0.1, 0.2))),
  ],
)
def test_values_that_make_no_sense(path, value):
  _refuses(path, value)


def test_values_that_are_meant():
  assert _recipe('config.seed', 2**31 - 10).seeds[-1] == 2**31 - 1
  assert _recipe('config.inject.fills', ('zeros', 'zeros', 'noise')).inject.fills[1] == 'zeros'  # Twice as often.
  assert _recipe('config.inject.fills', FILLS)
  assert _recipe('config.controls', ('dream',)).methods == ('dream',)  # The method under study is trained once.
  assert _recipe('config.optimizer.learning_rate', 1).optimizer.learning_rate == 1.0
  assert _recipe('config.study.regimes', ('complete', 'frames/0.5', 'imbalanced/0.5/text'))
  assert _recipe('config.data.options', {'anything': (1, 'x')}).data.options == {'anything': (1, 'x')}


def test_places_know_the_home_folder(monkeypatch):
  monkeypatch.setenv('HOME', '/h')
  for path in (*_PLACES, 'config.compile_cache'):
    recipe = _recipe(path, '~/x')
    assert '/h/x' in (recipe.data.dir, recipe.data.tfds_dir, recipe.data.manual_dir, recipe.compile_cache)


@pytest.mark.parametrize(
  ('rule', 'text'),
  [
    ({'least': 0, 'below': 1}, 'at least 0 and below 1'),
    ({'least': 1, 'most': 20}, '1 to 20'),
    ({'above': 0}, 'above 0'),
    ({'most': 0.5}, 'at most 0.5'),
    ({'least': -1, 'most': 3, 'never': (0,)}, '-1 to 3, not 0'),
    ({}, ''),
  ],
)
def test_ranges_in_words(rule, text):
  assert Rule('', **rule).numbers == text


def test_bounds_hold_in_the_precision_of_the_program():
  assert Rule('', least=0.1).holds(0.1)
  assert not Rule('', below=1).holds(1 - 1e-12)
  assert not Rule('', above=0).holds(1e-60)
  assert not Rule('').holds(1e39)
  assert Rule('', most=2**31 - 1).holds(2**31 - 1)
  assert not Rule('', most=2**31 - 1).holds(2**31)


def test_dictionaries_are_not_shared():
  assert setting({}, 'x').default_factory() is not setting({}, 'x').default_factory()


def test_command_prints_every_field_with_its_comment(root, tmp_path):
  command = [sys.executable, '-m', 'dream_jax.main', '--mode=fields']
  done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
  assert (done.returncode, done.stderr) == (0, '')
  text = ' '.join(done.stdout.split())
  for path, (_, rule) in _FIELDS.items():
    assert f'{path} = ' in text
    assert ' '.join(rule.comment.split()) in text
  assert 'config.train.batch_size = 64' in text
  assert '[int, 1 to 1000000]' in text
  assert 'config.data.dir = not set' in text
