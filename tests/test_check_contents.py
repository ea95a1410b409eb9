"""What the check of a user's data finds in them: every finding on data in which it was planted."""

import dataclasses

import numpy as np
import pytest
import small_data
from planted_data import SIZES, make, make_spec, modality, repeats, text_of, topics

from dream_jax.data.datasets import Dataset, Split, _assemble, sample_keys
from dream_jax.datacheck import check, verdict
from dream_jax.datacheck.advice import advise
from dream_jax.datacheck.duplicates import WHOLE
from dream_jax.datacheck.inspection import Lengths
from dream_jax.spec import ModalitySpec

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
  assert '10 % in train, 0 % in validation, 0.4 % in test' in text_of(findings, 'missing')

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
    'noise holds 2 NaN or infinite values: < 0.1 % of its cells, which make 1 of 1502 (< 0.1 %) of its frames missing.',
    'told holds 1 NaN or infinite value: < 0.1 % of its cells, which makes 1 of 750 (0.1 %) of its samples missing.',
  }
  assert modality(findings, 'told').empty == {'train': 0, 'validation': 0, 'test': 1}


def _with_nan(cells, **replaced):
  """The planted data with NaN at these cells of 'told', read as a data set is."""
  dataset = make()
  arrays = {n: {**s.features, 'id': s.ids, 'label': s.label} for n, s in dataset.splits.items()}
  for name, a in arrays.items():
    a['told'][cells(len(a['told']), name)] = np.nan
  return check.inspect(_assemble(dataset.spec, arrays))


def test_single_cells_that_make_whole_samples_missing_are_named(capsys):
  rng = np.random.default_rng(0)
  findings = _with_nan(lambda n, _: rng.random((n, 5)) < 0.1)
  found = modality(findings, 'told')
  assert 250 < found.lost_frames < 350
  (nan,) = (a for a in advise(findings) if a.topic == 'NaN')
  share = f'{found.lost_frames} of 750 ({100 * found.lost_frames / 750:.0f} %)'
  assert nan.text.endswith(f'10 % of its cells, which make {share} of its samples missing.')
  assert 'A single cell makes its sample missing' in nan.todo
  (missing,) = (a for a in advise(findings) if a.topic == 'missing')
  assert missing.todo == 'Mostly because of single NaN or infinite cells: see what is said of those.'
  # Vectors that are NaN throughout are gaps, and fine.
  findings = _with_nan(lambda n, _: np.arange(n) % 4 == 0)
  (nan, missing) = (a for a in advise(findings) if a.topic in ('NaN', 'missing'))
  assert nan.todo.startswith('Their frames are treated as missing')
  assert missing.todo == 'Models here can learn from such data; do not fill the gaps.'
  # One feature that is always NaN leaves nothing.
  findings = _with_nan(lambda n, _: (slice(None), 2))
  todo = {a.text: a.todo for a in advise(findings) if a.topic == 'missing'}
  assert todo['told is all zero in every train sample.'].startswith('Mostly because of single NaN')
  capsys.readouterr()


def test_features_that_float32_flattened_are_not_called_constant():
  dataset = make()
  rng = np.random.default_rng(1)
  for split in dataset.splits.values():
    told = split.features['told']
    told[:, 0] = 1.7e12 + 1000 * rng.random(len(told))  # Milliseconds since 1970.
    told[:, 1] = 1000 + rng.integers(0, 2, len(told)) / 2**14
    told[:, 2] = rng.normal(size=len(told)) * 1e-9
    told[:, 3] = 7
  findings = check.inspect(dataset)
  values = modality(findings, 'told').values
  assert (values.constant, values.narrow, values.tiny) == ((0, 1, 2, 3), (0, 1), (2,))
  unsure = 'if they vary at all'
  assert [a.text for a in advise(findings) if a.topic == 'constant'] == [
    'told: features that never change in training: 1 of 5 (position 3).',
    f'told: features that vary by less than float32 can hold well at their size, {unsure}: 2 of 5 (position 0, 1).',
    'told: features that vary by less than a millionth, too little to be rescaled: 1 of 5 (position 2).',
  ]


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


PADDED = (ModalitySpec('words', 'tokens', (12,), vocab_size=90), ModalitySpec('sound', 'sequence', (12, 2)))


def _padded(fill, side, n=60):
  """Words and sound of 2 to 9 entries in a row of 12, `fill` around them, without lengths of their own."""
  rng, splits = np.random.default_rng(0), {}
  for name in SIZES:
    words, sound = np.full((n, 12), fill, np.int32), np.zeros((n, 12, 2), np.float32)
    for row, length in enumerate(rng.integers(2, 10, n)):
      place = slice(12 - length, 12) if side == 'front' else slice(0, length)
      words[row, place] = rng.integers(10, 90, length)
      sound[row, place] = rng.normal(size=(length, 2))
    used = words != 0
    length = np.where(used.any(1), 12 - np.argmax(used[:, ::-1], axis=1), 12).astype(np.int32)
    content = (sound != 0).any(-1)
    features = {'words': words, 'words_length': length, 'sound': sound}
    features['sound_length'] = (12 - np.argmax(content[:, ::-1], axis=1)).astype(np.int32)
    ids = np.array([f'{name}{i}' for i in range(n)])
    splits[name] = Split(ids, sample_keys(ids), features, rng.integers(0, 2, n).astype(np.int32), {})
  return Dataset(make_spec('binary', PADDED), splits, {})


@pytest.mark.parametrize('fill', [1, 2, 0, 9])
def test_padding_in_front_is_named(fill):
  findings = check.inspect(_padded(fill, 'front'))
  found = {m.name: m.padding for m in findings.modalities}
  assert (found['words'].side, found['words'].value) == ('front', fill)
  assert found['sound'].side == 'front'
  texts = {a.text for a in advise(findings) if a.topic == 'padding' and a.kind == 'problem'}
  assert len(texts) == 2
  assert any(
    t.startswith(
      'sound seems to be padded in front: 60 of 60 (100 %) of the training samples begin with a run of frames '
      'of zeros (the median is '
    )
    for t in texts
  )
  assert not topics(findings) & {'full length', 'missing frames', 'unknown tokens'}
  assert all('move the content of each row to the front' in a.todo for a in advise(findings) if a.topic == 'padding')


@pytest.mark.parametrize('fill', [1, 2, 9])
def test_padding_of_another_tokenizer_is_named(fill):
  findings = check.inspect(_padded(fill, 'behind'))
  words, sound = findings.modalities
  assert (words.padding.side, words.padding.value, sound.padding) == ('behind', fill, None)
  (found,) = (a for a in advise(findings) if a.topic == 'padding')
  assert found.text.startswith(f'words: 60 of 60 (100 %) of the training samples end in a run of id {fill} (the median')
  assert f'np.where(x == {fill}, 0, x + 2)' in found.todo
  assert words.tokens.unknown == dict.fromkeys(SIZES, 0.0)
  assert not topics(findings) & {'full length', 'unknown tokens'}


def test_what_is_padded_as_here_or_hardly_is_no_foreign_padding():
  findings = check.inspect(_padded(0, 'behind'))
  assert [m.padding for m in findings.modalities] == [None, None]
  dataset = _padded(0, 'behind')
  train = dataset.splits['train'].features
  # Frames missing at random, a first frame that is always zero (as of differences), and words unknown at the end.
  train['sound'][:], train['sound_length'][:] = np.random.default_rng(0).normal(size=(60, 12, 2)), 12
  train['sound'][:, 0] = 0
  train['words'][:], train['words_length'][:] = np.random.default_rng(0).integers(1, 4, (60, 12)), 12
  train['words'][:, -3:] = 1
  assert [m.padding for m in check.inspect(dataset).modalities] == [None, None]
  train['sound'][np.random.default_rng(1).random((60, 12)) < 0.5] = 0
  assert [m.padding for m in check.inspect(dataset).modalities] == [None, None]


@pytest.mark.parametrize(
  ('shape', 'first'), [((3, 32, 32), True), ((1, 28, 28), True), ((32, 32, 3), False), ((4, 4, 3), False)]
)
def test_images_with_channels_first_are_named(shape, first):
  spec = make_spec('binary', (ModalitySpec('photo', 'image', shape), ModalitySpec('pose', 'vector', (2,))))
  rng = np.random.default_rng(0)
  features = {'photo': rng.normal(size=(6, *shape)).astype('f4'), 'pose': rng.normal(size=(6, 2)).astype('f4')}
  split = Split(np.array(list('abcdef')), sample_keys('abcdef'), features, np.arange(6, dtype=np.int32) % 2, {})
  findings = check.inspect(Dataset(spec, dict.fromkeys(SIZES, split), {}))
  assert ('channels first' in topics(findings, 'note')) == first
  if first:
    (found,) = (a for a in advise(findings) if a.topic == 'channels first')
    assert found.text.startswith(
      f'photo: shape {" x ".join(map(str, shape))} looks like channels first; expected [N, H, W, C]'
    )
    assert 'np.moveaxis(x, 1, -1)' in found.todo


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
    expected = '2 is 0.3 % of train and 20 % of test.'
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
