"""What a model may be given: every array from outside is used for what it holds, or refused in one line."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_data import SPEC, small_dataset

from dream_jax.data.prepare import prepare, standardise
from dream_jax.data.raw_inputs import received
from dream_jax.errors import UserError
from dream_jax.missingness.missing import Missing

STATISTICS = prepare(small_dataset(), train_missing=Missing(), seed=0).statistics
SIZE = 6


def _inputs(**changes):
  raw = {name: x[:SIZE].copy() for name, x in small_dataset().splits['test'].features.items()}
  return raw | changes


def _ready(**changes):
  return standardise(STATISTICS, SPEC, _inputs(**changes))


def _message(**changes):
  with pytest.raises(UserError) as caught:
    _ready(**changes)
  message = str(caught.value)
  assert '\n' not in message
  assert 'expected' in message
  return message


def _at(name, place, value, dtype=None):
  x = _inputs()[name]
  x = x.astype(dtype) if dtype else x
  x[place] = value
  return {name: x}


# Lengths.


@pytest.mark.parametrize('name', ['audio', 'text'])
def test_a_length_of_zero_is_a_modality_of_zeros(name):
  zeros = _inputs()[name]
  zeros[2] = 0
  none = _inputs()[f'{name}_length'].copy()
  none[2] = 0
  full = none.copy()
  full[2] = zeros.shape[1]
  wanted = _ready(**{name: zeros, f'{name}_length': full})
  for changes in ({f'{name}_length': none}, {name: zeros, f'{name}_length': none}):
    found = _ready(**changes)
    for key, x in wanted.items():
      np.testing.assert_array_equal(found[key], x, err_msg=key)
      assert found[key].dtype == x.dtype
  bare = {k: x for k, x in _inputs(**{name: zeros}).items() if k != f'{name}_length'}
  np.testing.assert_array_equal(standardise(STATISTICS, SPEC, bare)[name][2], wanted[name][2])
  if name == 'text':  # As missing tokens are in training: padding is never read there.
    assert (wanted[name][2] == SPEC.modalities[1].unk_id).all()


@pytest.mark.parametrize(
  ('value', 'found'), [(-1, '-1'), (8, '8'), (2.5, '2.5'), (np.nan, 'nan'), (np.inf, 'inf'), (2**32 + 3, '4.29497e+09')]
)
def test_lengths_that_are_none_are_refused(value, found):
  message = _message(**_at('audio_length', 3, value, np.float64))
  assert message.startswith(f"row 3 of input 'audio_length' holds {found}; expected a whole number from 1 to 7, or 0")
  if value == 8:
    assert message.endswith('cut what is longer to 7, as in training')
  message = _message(**_at('audio_length', [1, 3, 4], value, np.float64))
  assert message.startswith(f"row 1 of input 'audio_length' holds {found} (and 2 other rows likewise); expected")


def test_lengths_of_another_kind_or_shape_are_refused():
  length = _inputs()['audio_length']
  assert "input 'audio_length' holds text" in _message(audio_length=length.astype(str))
  assert "input 'audio_length' holds true and false" in _message(audio_length=length > 3)
  for wrong in (np.array(3), 3, length[:, None], length[:2]):
    assert f'audio_length has shape {np.shape(wrong)}; expected one length' in _message(audio_length=wrong)
  for right in (length.astype(np.float64), length.tolist(), jnp.asarray(length), length.astype(np.uint8)):
    np.testing.assert_array_equal(_ready(audio_length=right)['audio'], _ready()['audio'])


# What lies beyond them.


def _moved_to_the_end(x, length):
  """Padded in front."""
  moved = np.zeros_like(x)
  for row, n in enumerate(length):
    moved[row, x.shape[1] - n :] = x[row, :n]
  return moved


@pytest.mark.parametrize('name', ['audio', 'text'])
def test_content_beyond_a_length_is_not_cut_away(name):
  raw = _inputs()
  x, length = raw[name], raw[f'{name}_length']
  x[:] = np.arange(2, 2 + x.size).reshape(x.shape) % 48
  length[:] = (2, 3, 2, 4, x.shape[1], 1)
  x[np.arange(x.shape[1]) >= length[:, None]] = 0
  moved = _moved_to_the_end(x, length)
  message = _message(**{name: moved, f'{name}_length': length})
  unit = 'frame' if name == 'audio' else 'token'
  assert message.startswith(
    f'input {name!r} has content beyond {name}_length in 5 of 6 rows (row 0: length 2, content up to {unit} '
    f'{x.shape[1]}); expected zeros there'
  )
  assert 'padded in front: move what they hold to the start' in message
  np.testing.assert_array_equal(_ready(**{name: x, f'{name}_length': length})[f'{name}_length'], length)
  # Without lengths it is content like any other.
  moved = {k: v for k, v in _inputs(**{name: moved}).items() if k != f'{name}_length'}
  np.testing.assert_array_equal(standardise(STATISTICS, SPEC, moved)[f'{name}_length'], x.shape[1])


def test_a_length_that_is_too_short_is_no_front_padding():
  audio, length = _inputs()['audio'], np.full(SIZE, 7)
  audio[:] = np.arange(1, 8)[:, None]
  length[4] = 5
  message = _message(audio=audio, audio_length=length)
  assert 'in 1 of 6 rows (row 4: length 5, content up to frame 7)' in message
  assert 'correct the lengths, or set what lies beyond them to zero' in message


@pytest.mark.parametrize('value', [0, np.nan, -80.0, np.finfo(np.float32).min])
def test_what_pads_may_be_any_one_frame(value):
  raw = _inputs()
  raw['audio'][np.arange(7) >= raw['audio_length'][:, None]] = value
  np.testing.assert_array_equal(standardise(STATISTICS, SPEC, raw)['audio'], _ready()['audio'])


@pytest.mark.parametrize('value', [1, -100, 50, 2**40])
def test_padding_of_another_tokenizer_is_no_content(value):
  raw = _inputs()
  raw['text'] = raw['text'].astype(np.int64)
  raw['text'][:, 0] = 0  # The first word of such a vocabulary.
  wanted = standardise(STATISTICS, SPEC, raw)['text']
  raw['text'][np.arange(6) >= raw['text_length'][:, None]] = value
  np.testing.assert_array_equal(standardise(STATISTICS, SPEC, raw)['text'], wanted)


def test_the_last_frame_repeated_pads():
  raw = _inputs()
  for row, length in enumerate(raw['audio_length']):
    raw['audio'][row, length:] = raw['audio'][row, length - 1]
  np.testing.assert_array_equal(standardise(STATISTICS, SPEC, raw)['audio'], _ready()['audio'])


def test_one_word_behind_one_zero_is_no_padding():
  text, length = np.tile(np.array([0, 5, 6, 7, 8, 9], np.int32), (SIZE, 1)), np.full(SIZE, 5)
  assert 'in 6 of 6 rows (row 0: length 5, content up to token 6)' in _message(text=text, text_length=length)
  text[0, 4], length[0] = 9, 4  # Padded with 9 twice, so 9 pads.
  assert (_ready(text=text, text_length=length)['text'][:, 5] == 0).all()


@pytest.mark.parametrize('name', ['audio', 'text'])
def test_one_frame_and_then_zeros_is_content_behind_a_length_that_is_too_short(name):
  raw = _inputs()
  x, length = raw[name], raw[f'{name}_length']
  x[:], length[:] = 0, 2
  x[:, :3] = 5
  assert 'in 6 of 6 rows (row 0: length 2, content up to ' in _message(**{name: x, f'{name}_length': length})


def test_constant_content_behind_padding_in_front_is_content():
  audio, length = np.zeros((SIZE, 7, 5), np.float32), np.full(SIZE, 3)
  audio[:, 4:] = 1
  assert 'padded in front' in _message(audio=audio, audio_length=length)


def test_training_reads_nothing_beyond_a_length():
  dataset = small_dataset()
  wanted = prepare(dataset, train_missing=Missing(), seed=0)
  train = dataset.splits['train'].features
  beyond = np.arange(7) >= train['audio_length'][:, None]
  train['audio'][beyond] = np.random.default_rng(0).normal(size=(beyond.sum(), 5)) * 1e30
  found = prepare(dataset, train_missing=Missing(), seed=0)
  np.testing.assert_array_equal(found.splits['train'].features['audio'], wanted.splits['train'].features['audio'])
  train['audio_length'][3] = 8
  with pytest.raises(UserError, match="row 3 of input 'audio_length' holds 8"):
    prepare(dataset, train_missing=Missing(), seed=0)


# Numbers.


@pytest.mark.parametrize(
  ('value', 'found'),
  [
    (np.ones((SIZE, 4), np.complex64), "input 'pose' holds complex numbers"),
    (np.full((SIZE, 4), 'a'), "input 'pose' holds text"),
    (np.full((SIZE, 4), b'a'), "input 'pose' holds text"),
    (np.zeros((SIZE, 4), 'M8[s]'), "input 'pose' holds dates"),
    (np.zeros((SIZE, 4), 'm8[s]'), "input 'pose' holds durations"),
    (np.zeros((SIZE, 4), jax.dtypes.float0), "input 'pose' holds records"),
    ([[1.0] * 4] * 3 + [[1.0, None, 1.0, 1.0]] * 3, "input 'pose' holds Python objects (row 3: NoneType)"),
    (np.ones((SIZE, 4), object), "input 'pose' holds Python objects; expected numbers: x.astype(np.float32)"),
    ([[1.0] * 4, [1.0] * 3], "input 'pose' is made of rows of different sizes"),
    ([np.ones((2, 3)), np.ones((2, 4))], "input 'pose' is made of rows of different sizes"),
    (np.ma.masked_equal(np.eye(6, 4), 1), "input 'pose' has masked values"),
    ([np.ma.masked_equal(row, 1) for row in np.eye(6, 4)], "input 'pose' has masked values"),
    (None, "input 'pose' is None"),
    ({'a': 1}, "input 'pose' is a dict; expected an array of numbers"),
    (1.0, "input 'pose' has shape (); expected a batch of (4,), so (B, 4)"),
    (np.ones(4), "input 'pose' has shape (4,); expected a batch of (4,), so (B, 4): a single sample is a batch of one"),
  ],
  ids=str,
)
def test_what_is_no_array_of_numbers_is_refused(value, found):
  assert _message(pose=value).startswith(found)


def test_what_cannot_be_read_says_why():
  class Theirs:
    def __array__(self, *_, **__):
      raise RuntimeError("Can't call numpy() on a tensor\nthat requires grad.")

  message = _message(pose=Theirs())
  assert message.startswith(
    "input 'pose' cannot be read as an array (Can't call numpy() on a tensor that requires grad.)"
  )
  with pytest.raises(UserError, match="input 'pose' cannot be read as an array"):
    jax.jit(lambda pose: _ready(pose=pose)['pose'])(np.ones((SIZE, 4)))


@pytest.mark.parametrize(
  'kind', [np.float64, np.float16, np.longdouble, np.int8, np.uint64, np.int64, '>f4', jnp.bfloat16, list, jnp]
)
def test_numbers_of_any_type_are_read(kind):
  whole = np.round(_inputs()['pose'])
  given = {list: np.ndarray.tolist, jnp: jnp.asarray}.get(kind, lambda x: x.astype(kind))
  whole = np.abs(whole) if kind is np.uint64 else whole
  np.testing.assert_array_equal(_ready(pose=given(whole))['pose'], _ready(pose=whole)['pose'])
  assert _ready(pose=given(whole))['pose'].dtype == np.float32


def test_true_and_false_are_numbers_but_no_ids():
  face = _inputs()['face'] > 3
  np.testing.assert_array_equal(_ready(face=face)['face'], _ready(face=face.astype(np.float32))['face'])
  assert "input 'text' holds true and false; expected token ids" in _message(text=_inputs()['text'] > 3)


def test_masked_arrays_without_masked_values_are_arrays():
  pose = np.ma.masked_greater(_inputs()['pose'], 1e9)
  np.testing.assert_array_equal(_ready(pose=pose)['pose'], _ready()['pose'])


def test_numbers_beyond_float32_are_refused():
  message = _message(**_at('pose', (2, 1), -1e39, np.float64))
  assert message.startswith("row 2 of input 'pose' holds -1e+39; expected numbers that float32 can hold, up to 3.4e+38")
  message = _message(**_at('pose', (slice(2, 4), 1), 1e300, np.float64))
  assert "row 2 of input 'pose' holds 1e+300 (and another row likewise)" in message
  # Standardising may leave float32 too.
  narrow = dataclasses.replace(STATISTICS, std=STATISTICS.std | {'pose': np.full(4, 1e-3, np.float32)})
  with pytest.raises(UserError, match=r"row 2 of input 'pose' holds 1e\+37; expected values like those of training"):
    standardise(narrow, SPEC, _inputs(**_at('pose', (2, 1), 1e37)))


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('name', ['pose', 'face', 'audio'])
def test_a_frame_that_is_no_number_is_missing(name, value):
  place = (2,) + (0,) * (_inputs()[name].ndim - 1)
  zeros = _at(name, place[:2] if name == 'audio' else place[:1], 0)
  np.testing.assert_array_equal(_ready(**_at(name, place, value))[name], _ready(**zeros)[name])


def test_token_ids_are_whole_numbers_of_the_vocabulary():
  ids = _inputs()['text']
  for right in (ids.astype(np.float64), ids.astype(np.uint8), ids.tolist(), ids.astype(np.int64)):
    np.testing.assert_array_equal(_ready(text=right)['text'], ids)
    assert _ready(text=right)['text'].dtype == np.int32
  for value, found in ((2.5, '2.5'), (np.nan, 'nan'), (np.inf, 'inf')):
    message = _message(**_at('text', (4, 1), value, np.float64))
    assert message.startswith(f"row 4 of input 'text' holds {found}; expected token ids, whole numbers")
  for value, found in ((-1, '-1'), (50, '50'), (2**32 + 2, '4.29497e+09')):
    message = _message(**_at('text', (4, 1), value, np.int64))
    assert message.startswith(f"row 4 of input 'text' has token id {found}; expected 0 to 49")


# Shapes and names.


@pytest.mark.parametrize(
  ('name', 'change', 'hint'),
  [
    ('face', lambda x: np.moveaxis(x, -1, 1), 'channels come last, np.moveaxis(x, 1, -1)'),
    ('audio', lambda x: np.swapaxes(x, 1, 2), 'time comes before features, np.swapaxes(x, 1, 2)'),
    ('audio', lambda x: x[:, :4], 'pad with zeros to 7'),
    ('text', lambda x: np.tile(x, 2), 'longer ones are cut to 6'),
    ('face', lambda x: x[0], 'a single sample is a batch of one, x[None]'),
  ],
)
def test_usual_slips_of_shape_are_named(name, change, hint):
  x = change(_inputs()[name])
  message = _message(**{name: x})
  assert message.startswith(f'input {name!r} has shape {x.shape}; expected a batch of ')
  assert message.endswith(f': {hint}')


@pytest.mark.parametrize(
  ('inputs', 'found'),
  [
    ({3: 1}, 'unknown input 3; .*audio'),
    (np.ones(3), 'inputs are a ndarray; expected a dict'),
    ({'audio': 1, 'text': 1, 'face': 1}, "input 'pose' is absent"),
  ],
)
def test_inputs_go_by_name(inputs, found):
  with pytest.raises(UserError, match=found):
    received(SPEC, inputs)


def test_batches_have_one_size():
  assert 'audio 6, text 6, face 6, pose 1' in _message(pose=_inputs()['pose'][:1])


def test_what_is_as_it_should_be_is_not_copied():
  raw = _inputs()
  found = received(SPEC, raw)
  for name in SPEC.names:
    assert found[name] is raw[name]
