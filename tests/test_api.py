"""The notebook API: a trained workdir as a function of raw arrays, equal to what the trainer computed."""

import dataclasses
import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from run_places import run_folder
from scipy import special
from small_runs import jit, small_config, small_prepared, small_spec

import dream_jax
from dream_jax import api
from dream_jax.config.recipe import recipe_from_config
from dream_jax.data.datasets import load_dataset
from dream_jax.data.prepare import standardise
from dream_jax.data.raw_inputs import received
from dream_jax.errors import UserError
from dream_jax.evaluation.calibration import Calibration
from dream_jax.evaluation.predict import label_scale
from dream_jax.models.dream.dream import Dream
from dream_jax.models.outputs import Outputs
from dream_jax.models.registry import build, find_method
from dream_jax.spec import ModalitySpec
from dream_jax.workdir import method_files, sealed
from dream_jax.workdir.config_guard import read_config


@pytest.fixture(scope='module')
def workdir(trained):
  folder, process = trained
  assert process.returncode == 0, process.stderr[-2000:]
  return folder


@pytest.fixture(scope='module')
def predictor(workdir):
  return dream_jax.load(workdir)


@pytest.fixture(scope='module')
def test_split(workdir):
  return load_dataset('digits').splits['test']


def _rows(split, rows):
  return {name: x[rows] for name, x in split.features.items()}


def test_predictor_equals_the_evaluation_of_the_trainer(workdir, test_split):
  """Accuracy on the raw test split, from raw arrays, for every seed of two methods, against results.json."""
  results = json.loads((workdir / 'results.json').read_text())
  for method in ('dream', 'late+dropout'):
    stored = results['methods'][method]['protocols']['complete']['metrics']['accuracy'][0]
    for seed in (0, 1):
      out = dream_jax.load(workdir, method=method, seed=seed)(test_split.features)
      accuracy = (out.prediction.argmax(1) == test_split.label).mean()
      np.testing.assert_allclose(accuracy, stored[seed], atol=1e-9)
      np.testing.assert_allclose(out.prediction.sum(1), 1, rtol=1e-5)
  contribution = results['methods']['dream']['contribution']['complete']['contributions'][0]
  of_seeds = [dream_jax.load(workdir, seed=s)(test_split.features).contributions.mean(0) for s in (0, 1)]
  np.testing.assert_allclose(np.mean(of_seeds, axis=0), contribution, rtol=1e-4, atol=1e-5)


def test_best_seed_of_validation_is_the_default(workdir, predictor):
  scores = method_files.read_method(str(run_folder(workdir, 'dream')), 'dream').facts['validation_score']
  assert predictor.seed == int(np.argmax(scores))
  assert predictor.method == 'dream'


def test_confidence_is_put_right_as_was_fitted_for_the_seed(workdir, test_split, tmp_path):
  copy = tmp_path / 'run'
  shutil.copytree(workdir, copy)
  path = run_folder(copy, 'dream') / 'methods' / 'dream.json'
  content, run = sealed.read(path, remedy='')
  content['facts']['validation_score'] = [0.1, 0.9]
  sealed.write(path, content, run=run)
  stored = [Calibration(**c) for c in content['rows'][0]['calibration']]
  assert len({c.temperature for c in (*stored, Calibration())}) == 3
  predictor, inputs = dream_jax.load(copy), _rows(test_split, slice(0, 8))
  assert (predictor.seed, predictor.calibration) == (1, stored[1])
  assert dream_jax.load(copy, seed=0).calibration == stored[0]
  apply = jit(dream_jax.make_apply(read_config(str(copy)), spec=predictor.spec).apply)
  raw, out = apply(predictor.params, standardise(predictor.statistics, predictor.spec, inputs)), predictor(inputs)
  wanted = special.softmax(np.asarray(raw.prediction) / stored[1].temperature, axis=-1)
  np.testing.assert_allclose(out.prediction, wanted, rtol=1e-4, atol=1e-5)
  # The temperature is of the fused logits; it says nothing about those of one modality.
  assert out.unimodal_predictions is not None
  wanted = special.softmax(np.asarray(raw.unimodal_predictions), axis=-1)
  np.testing.assert_allclose(out.unimodal_predictions, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_batch_size_does_not_matter(predictor, test_split):
  whole = predictor(_rows(test_split, slice(0, 8)))
  for rows in (slice(0, 1), slice(2, 5), slice(3, 8)):
    part = predictor(_rows(test_split, rows))
    for field in ('prediction', 'contributions', 'presence', 'soft_mask', 'unimodal_predictions'):
      assert len(getattr(part, field)) == rows.stop - rows.start
      np.testing.assert_allclose(getattr(part, field), getattr(whole, field)[rows], rtol=1e-4, atol=1e-5)


def test_contributions_and_explanations_speak_by_name(predictor, test_split):
  inputs = _rows(test_split, slice(0, 5))
  out, names = predictor(inputs), predictor.spec.names
  contributions = predictor.contributions(inputs)
  assert tuple(contributions) == names
  rows = predictor.explain(inputs)
  assert len(rows) == 5
  for i, row in enumerate(rows):
    assert set(row) == {'decision', 'confidence', 'contributions', 'presence', 'gates', 'weights'}
    best = int(out.prediction[i].argmax())
    assert row['decision'] == (predictor.spec.class_names[best] if predictor.spec.class_names else best)
    np.testing.assert_allclose(row['confidence'], out.prediction[i].max(), rtol=1e-5)
    for m, name in enumerate(names):
      np.testing.assert_allclose(row['contributions'][name], out.contributions[i, m], rtol=1e-5)
      np.testing.assert_allclose(contributions[name][i], out.contributions[i, m], rtol=1e-5)
      np.testing.assert_allclose(row['weights'][name], out.soft_mask[i, m], rtol=1e-5)
      assert 0 <= row['presence'][name] <= 1 + 1e-6
  json.dumps(rows)


def test_missing_lengths_are_those_of_the_content_and_missing_modalities_are_zeros(predictor, test_split):
  inputs = _rows(test_split, slice(0, 3))
  assert any((inputs[m.length_name] < m.shape[0]).any() for m in predictor.spec.modalities if m.has_length)
  without = {name: x for name, x in inputs.items() if not name.endswith('_length')}
  np.testing.assert_array_equal(predictor(inputs).prediction, predictor(without).prediction)
  for name in predictor.spec.names:
    assert np.isfinite(predictor({**inputs, name: np.zeros_like(inputs[name])}).prediction).all()
    assert np.isfinite(predictor({**inputs, name: np.full_like(inputs[name], np.nan)}).prediction).all()


def test_mistakes_in_inputs_say_what_is_expected(predictor, test_split):
  inputs = _rows(test_split, slice(0, 3))
  name = predictor.spec.names[0]
  with pytest.raises(UserError, match=f"unknown input '{name}s'; did you mean {name}"):
    predictor({f'{name}s' if k == name else k: x for k, x in inputs.items()})
  with pytest.raises(UserError, match='no modality is given'):
    predictor({})
  with pytest.raises(UserError, match=f"'{name}' has shape"):
    predictor({**inputs, name: inputs[name][..., :-1]})
  with pytest.raises(UserError, match=f"'{name}' has shape"):
    predictor({**inputs, name: inputs[name][0]})
  with pytest.raises(UserError, match='empty'):
    predictor(_rows(test_split, slice(0, 0)))
  with pytest.raises(UserError, match='samples'):
    predictor({**inputs, name: inputs[name][:2]})


def test_a_modality_that_is_absent_or_none_is_missing(predictor, test_split):
  inputs = _rows(test_split, slice(0, 4))
  for m in predictor.spec.modalities:
    gone = {**inputs, m.name: np.zeros_like(inputs[m.name])}
    if m.has_length:
      gone[m.length_name] = np.zeros(4, np.int32)
    without = {k: x for k, x in inputs.items() if k not in (m.name, m.length_name)}
    expected = predictor(gone).prediction
    assert np.abs(predictor(inputs).prediction - expected).max() > 1e-4
    for same in (without, {**without, m.name: None}, {**inputs, m.name: None}):
      np.testing.assert_array_equal(predictor(same).prediction, expected)


def test_rows_that_are_none_are_missing_and_a_last_axis_of_one_may_be_left_out():
  spec = dataclasses.replace(
    small_spec(names=('audio', 'pose')),
    modalities=(
      *small_spec(names=('audio', 'text')).modalities,
      ModalitySpec('scan', 'image', (2, 3, 1)),
      ModalitySpec('age', 'vector', (1,)),
    ),
  )
  one, words = np.ones((7, 5)), np.full(6, 3)
  given = {
    'audio': [one, None],
    'audio_length': [4, 9],
    'text': [None, words],
    'scan': np.ones((2, 2, 3)),
    'age': [3, 4],
  }
  made = received(spec, api.completed(spec, given), beyond=False)
  assert made['audio_length'].tolist() == [4, 7]
  assert not made['audio'][1].any()
  assert made['text'].tolist() == [[0] * 6, [3] * 6]
  assert (made['scan'].shape, made['age'].tolist()) == ((2, 2, 3, 1), [[3], [4]])
  ragged = {**given, 'audio': [one, one[:3]], 'audio_length': None}
  with pytest.raises(UserError, match="'audio' is made of rows of different sizes"):
    received(spec, api.completed(spec, ragged))
  with pytest.raises(UserError, match='expected a dict of arrays'):
    received(spec, api.completed(spec, [1, 2]))  # pyright: ignore[reportArgumentType]


def test_printing_outputs_shows_shapes_and_no_latents():
  out = Outputs(np.zeros((40, 3)), contributions=np.zeros((40, 2)), latents=np.full((40, 2, 9), 7.25))  # pyright: ignore
  assert repr(out) == 'Outputs(prediction [40, 3], contributions [40, 2])'
  assert repr(Outputs(np.array([[0.25]]))) == 'Outputs(prediction [1, 1]; prediction = [[0.25]])'  # pyright: ignore


def test_mistakes_in_loading_say_what_there_is(workdir, tmp_path):
  with pytest.raises(UserError, match=r'config\.json'):
    dream_jax.load(tmp_path / 'none')
  with pytest.raises(UserError, match=r"'drem'.*dream"):
    dream_jax.load(workdir, method='drem')
  with pytest.raises(UserError, match=r'no seed 7; it has 0 to 1'):
    dream_jax.load(workdir, seed=7)
  with pytest.raises(UserError, match='no model for use'):
    dream_jax.load(workdir, method='majority')
  with pytest.raises(UserError, match='load the method dream'):
    dream_jax.load(workdir, method='late+dropout').contributions(_zeros(dream_jax.load(workdir).spec))


def _zeros(spec):
  return {m.name: np.zeros((2, *m.shape), np.int32 if m.kind == 'tokens' else np.float32) for m in spec.modalities}


@pytest.mark.parametrize('damage', ['results.json', 'spec.json', 'spec.*.npz', 'methods/dream.json', 'checkpoints'])
def test_damaged_files_are_named(workdir, tmp_path, damage):
  copy = tmp_path / 'run'
  shutil.copytree(workdir, copy)
  (path,) = (copy if damage == 'results.json' else run_folder(copy, 'dream')).glob(damage)
  if damage == 'checkpoints':
    path = max((p for p in (path / 'dream' / 'best').rglob('*') if p.is_file()), key=lambda p: p.stat().st_size)
  content = path.read_bytes()
  path.write_bytes(content[: len(content) // 2])
  with pytest.raises(UserError) as error:
    dream_jax.load(copy)
  assert 'best' in str(error.value) if damage == 'checkpoints' else path.name in str(error.value)
  if damage not in ('checkpoints', 'results.json'):  # Without results there is one run to choose from.
    path.unlink()
    with pytest.raises(UserError):
      dream_jax.load(copy)


def test_regression_answers_in_the_units_of_the_labels(tmp_path):
  prepared = small_prepared('regression', ('face', 'pose'))
  method_files.write_predictor_parts(str(tmp_path), prepared)
  parts = method_files.read_predictor_parts(str(tmp_path))
  scale = label_scale(prepared)
  assert (parts.scale, parts.spec) == (scale, prepared.spec)
  model = build(find_method('late+dropout'), parts.spec, recipe_from_config(small_config()).model)
  params = model.init({'params': jax.random.key(0)}, api.empty_inputs(parts.spec), train=False)['params']
  predictor = api.Predictor(model, params, parts, 'late+dropout', 0)
  raw = {m.name: np.random.default_rng(1).normal(3, 2, (3, *m.shape)).astype(np.float32) for m in parts.spec.modalities}
  ready = {n: (x - parts.statistics.mean[n]) / parts.statistics.std[n] for n, x in raw.items()}
  wanted = model.apply({'params': params}, ready, train=False).prediction * scale.std + scale.mean
  np.testing.assert_allclose(predictor(raw).prediction, wanted, rtol=1e-4, atol=1e-4)
  assert predictor.explain(raw)[0]['decision'] == pytest.approx(float(wanted[0, 0]), rel=1e-4)
  assert predictor.explain(raw)[0]['confidence'] is None


def test_a_loaded_model_reads_length_zero_as_missing_and_refuses_what_it_cannot_answer(tmp_path):
  prepared = small_prepared('regression', ('audio', 'pose'))
  method_files.write_predictor_parts(str(tmp_path), prepared)
  parts = method_files.read_predictor_parts(str(tmp_path))
  model = build(find_method('late+dropout'), parts.spec, recipe_from_config(small_config()).model)
  params = model.init({'params': jax.random.key(0)}, api.empty_inputs(parts.spec), train=False)['params']
  predictor = api.Predictor(model, params, parts, 'late+dropout', 0)
  raw = {'audio': np.random.default_rng(1).normal(3, 2, (4, 7, 5)), 'pose': np.ones((4, 4))}
  given = predictor({**raw, 'audio_length': np.array([7, 7, 0, 0])}).prediction
  zeros = predictor({**raw, 'audio': raw['audio'] * np.array([1, 1, 0, 0])[:, None, None]}).prediction
  np.testing.assert_array_equal(given, zeros)
  assert np.abs(predictor(raw).prediction - given)[2:].min() > 1e-3
  with pytest.raises(UserError, match=r"row 1 of input 'audio_length' holds 9; expected"):
    predictor.explain({**raw, 'audio_length': np.array([7, 9, 7, 7])})
  with pytest.raises(UserError, match=r"row 2 has no answer: its input 'pose' lies up to .*e\+3\d standard deviations"):
    predictor({**raw, 'pose': np.ones((4, 4)) * np.array([1, 1, 3e38, 1])[:, None]})


def test_pure_functions_of_a_folder(tmp_path):
  rng = np.random.default_rng(0)
  np.savez(tmp_path / 'a.npz', x=rng.normal(size=(60, 3)), y=rng.normal(size=(60, 4)), label=rng.integers(0, 3, 60))
  text = 'task = "multiclass"\nlabel = "label"\nsplits = { train = 0.6, validation = 0.2, test = 0.2 }\n'
  (tmp_path / 'dataset.toml').write_text(text + '[modalities]\nx = "vector"\ny = "vector"\n')
  config = small_config()
  with config.unlocked():
    config.data.name, config.data.dir, config.data.tfds_dir = 'folder', str(tmp_path), str(tmp_path / 'tfds')
  functions = dream_jax.make_apply(config)
  params = jax.jit(functions.init)(jax.random.key(0))
  inputs = {'x': np.zeros((2, 3), np.float32), 'y': np.zeros((2, 4), np.float32)}
  assert jax.jit(functions.apply)(params, inputs).prediction.shape == (2, 3)


def test_pure_functions_of_an_untrained_model():
  spec = small_spec(names=('face', 'pose'))
  functions = dream_jax.make_apply(small_config(), spec=spec)
  params = jax.jit(functions.init)(jax.random.key(0))
  inputs = api.empty_inputs(spec, 3)
  out = jax.jit(functions.apply)(params, inputs)
  assert out.prediction.shape == (3, spec.num_outputs)
  two = jax.tree.map(lambda a, b: np.stack([a, b]), params, jax.jit(functions.init)(jax.random.key(1)))
  mapped = jax.jit(jax.vmap(functions.apply, in_axes=(0, None)))(two, inputs)
  np.testing.assert_allclose(mapped.prediction[0], out.prediction, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_an_untrained_model_may_know_what_real_features_look_like():
  prepared = small_prepared(names=('face', 'pose'))
  functions, features = dream_jax.make_apply(small_config(), spec=prepared.spec), prepared.splits['train'].features
  blank, known = functions.init(jax.random.key(0)), functions.init(jax.random.key(0), features, prepared.zero)
  fitted = Dream(prepared.spec).fitted(features, prepared.zero)['recogniser']['detector']
  for name, fit in fitted.items():
    jax.tree.map(np.testing.assert_array_equal, known['recogniser']['detector'].pop(name), fit)
    blank['recogniser']['detector'].pop(name)
  jax.tree.map(np.testing.assert_array_equal, known, blank)


def test_importing_the_package_loads_no_tensorflow_and_loading_a_model_neither(root, workdir):
  code = (
    'import sys, dream_jax; assert "jax" not in sys.modules; assert not any("tensorflow" in m for m in sys.modules);'
    f' dream_jax.load({str(workdir)!r});'
    ' assert not any(m.partition(".")[0] in ("tensorflow", "tensorflow_datasets") for m in sys.modules)'
  )
  subprocess.run([sys.executable, '-c', code], check=True, cwd=root, timeout=120)
