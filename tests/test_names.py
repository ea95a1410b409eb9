"""Users name modalities as they like: no name of theirs meets one of ours in results, in networks or among features."""

import jax
import jax.numpy as jnp
import pytest
import small_folder

from dream_jax.api import empty_inputs
from dream_jax.config.recipe import ModelSettings
from dream_jax.data.builders.folder.description import read_description
from dream_jax.data.builders.folder.survey import survey_folder
from dream_jax.errors import UserError
from dream_jax.evaluation.evaluate import _row_names
from dream_jax.models.model import ORACLE_MASK
from dream_jax.models.registry import METHODS, build, find_method
from dream_jax.spec import DatasetSpec, ModalitySpec

# What networks put behind a name, names of fields of modules, of methods, and of entries beside them in results.
_UNLUCKY = ('eeg', 'eeg_odds', 'eeg_table', 'eeg_trust', 'eeg_typicality', 'spec', 'natural_damage', 'dream')


def _spec(names, *, keys=True):
  return DatasetSpec(
    name='unlucky',
    modalities=tuple(ModalitySpec(n, 'vector', (3,), key=f'slot{i}' if keys else '') for i, n in enumerate(names)),
    task='binary',
    num_outputs=1,
    data_kind='synthetic',
  )


def _first_params(method, spec):
  model = build(method, spec, ModelSettings(width=4, hidden=4))
  inputs = empty_inputs(spec) | ({ORACLE_MASK: jnp.ones((1, spec.num_modalities))} if method.uses_oracle else {})
  return jax.eval_shape(lambda: model.init({'params': jax.random.key(0)}, inputs, train=False)['params'])


@pytest.mark.parametrize('name', [name for name, method in METHODS.items() if method.module is not None])
def test_every_method_is_built_whatever_modalities_are_called(name):
  method = find_method(name)
  lucky, unlucky = (_first_params(method, _spec(names)) for names in (_UNLUCKY, [f'm{i}' for i in range(8)]))
  assert jax.tree.structure(lucky) == jax.tree.structure(unlucky)
  assert jax.tree.leaves(lucky) == jax.tree.leaves(unlucky)


def test_without_keys_parts_of_one_name_are_refused():
  with pytest.raises(UserError, match=r'modality eeg_odds the name eeg_odds of modality eeg; give it a key.*slot0'):
    _spec(('eeg', 'eeg_odds'), keys=False)
  with pytest.raises(UserError, match='modality natural_damage the name natural_damage of a part of ours'):
    _spec(('eeg', 'natural_damage'), keys=False)
  for name in METHODS:
    if find_method(name).module is not None:
      _first_params(find_method(name), _spec(('spec', 'sizes', 'name', 'apply'), keys=False))


@pytest.mark.parametrize('name', ['id', 'label', 'oracle_mask', 'a/b', 'a+b', '', '0a', 'a b'])
def test_a_name_that_features_cannot_bear_is_refused(name):
  with pytest.raises(UserError, match='expected letters, digits and _'):
    ModalitySpec(name, 'vector', (3,))


def test_a_modality_called_like_the_lengths_of_another_is_refused():
  with pytest.raises(UserError, match='modality eeg_length is called like the lengths of eeg'):
    DatasetSpec(
      'odd',
      (ModalitySpec('eeg', 'sequence', (4, 2)), ModalitySpec('eeg_length', 'vector', (1,))),
      'binary',
      1,
      'synthetic',
    )


def test_own_data_have_keys_of_ours(tmp_path):
  small_folder.write_npz(tmp_path / 'data.npz', small_folder.make_rows())
  (tmp_path / 'dataset.toml').write_text(small_folder.TOML)
  spec = survey_folder(read_description(str(tmp_path))).spec
  assert [m.inside for m in spec.modalities] == [f'slot{i}' for i in range(spec.num_modalities)]
  assert spec.names == tuple(small_folder.SHAPES)


def test_rows_of_modalities_never_replace_those_of_methods():
  rows = [row for name in ('unimodal', 'dream') for row in _row_names(find_method(name), _spec(('dream', 'concat')))]
  assert [name for name, *_ in rows] == ['unimodal/dream', 'unimodal/concat', 'dream']
  assert [modality for *_, modality in rows] == ['dream', 'concat', None]
  assert not any('/' in name for name in METHODS)
  (_, title, _), *_ = _row_names(find_method('unimodal[model.width=8]'), _spec(('dream', 'concat')))
  assert title == 'Only dream: width 8'
