"""What to do about everything in the findings of one modality that looks wrong, or that is good to know."""

import math
from collections.abc import Iterator

from dream_jax.datacheck.inspection import Findings, ModalityFindings
from dream_jax.datacheck.words import Advice, counted, factor, listed, percent, share_of, verb

_OFTEN_EMPTY, _EMPTY_DIFFERS = 0.05, 0.2
_OFTEN_FULL, _OFTEN_UNSEEN = 0.1, 0.1
_WILD_SCALE = 1000.0
_CHANNELS, _SMALLEST_SIDE = (1, 3, 4), 8


def about_modality(findings: Findings, modality: ModalityFindings) -> Iterator[Advice]:
  """What is worth knowing about one modality."""
  if modality.non_finite:
    yield _about_nan(modality)
  yield from _about_axes(modality)
  yield from _about_padding(findings, modality)
  yield from _about_empty(findings, modality)
  yield from _about_values(modality)
  yield from _about_lengths(findings, modality)
  yield from _about_tokens(modality)


def _about_nan(modality: ModalityFindings) -> Advice:
  found = f'{modality.name} holds {counted(modality.non_finite, "NaN or infinite value")}'
  if modality.lost_frames:
    cells = modality.non_finite / (modality.frames * _width(modality))
    lost = share_of(modality.lost_frames, modality.frames)
    found += f': {percent(cells)} of its cells, which {verb(modality.non_finite, "make", "makes")} {lost} of its '
    found += f'{_frames(modality)} missing'
  whole = {'sequence': 'its frame', 'image': 'its image'}.get(modality.kind, 'its sample')
  todo = (
    f'A single cell makes {whole} missing: unless they are few, give such cells a value, as the mean of their feature '
    'over training, or leave out the features that hold them.'
    if _scattered(modality)
    else 'Their frames are treated as missing; mend the source if they are more than a few.'
  )
  return Advice('problem', 'NaN', f'{found}.', todo)


def _about_axes(modality: ModalityFindings) -> Iterator[Advice]:
  if modality.kind == 'image' and modality.shape[0] in _CHANNELS and min(modality.shape[1:]) >= _SMALLEST_SIDE:
    yield Advice(
      'note',
      'channels first',
      f'{modality.name}: shape {" x ".join(map(str, modality.shape))} looks like channels first; expected '
      '[N, H, W, C], with the channels last.',
      'If so, convert the array: np.moveaxis(x, 1, -1). As it is, colours are taken for rows and columns for colours.',
    )


def _about_padding(findings: Findings, modality: ModalityFindings) -> Iterator[Advice]:
  padding, name = modality.padding, modality.name
  if padding is None:
    return
  samples = f'{share_of(padding.samples, findings.sizes["train"])} of the training samples'
  long = f'(the median is {padding.median:g} of {modality.shape[0]})'
  if padding.side == 'front':
    what = f'id {padding.value}' if modality.kind == 'tokens' else 'frames of zeros'
    yield Advice(
      'problem',
      'padding',
      f'{name} seems to be padded in front: {samples} begin with a run of {what} {long} and go on to the very end.',
      'Padding belongs behind and is 0: move the content of each row to the front. Only then give lengths; what lies '
      'beyond a length is not read.',
    )
    return
  yield Advice(
    'problem',
    'padding',
    f'{name}: {samples} end in a run of id {padding.value} {long}, which stands nowhere else: probably the padding of '
    'another tokenizer.',
    'Here 0 is padding and 1 the unknown word: make its padding 0 and move the other ids out of the way, as '
    f'np.where(x == {padding.value}, 0, x + 2) does (a vocab_size grows by 2 then).',
  )


def _about_values(modality: ModalityFindings) -> Iterator[Advice]:
  name, values, width = modality.name, modality.values, modality.shape[-1]
  if values is None or not values.frames:
    return
  noun = 'channels' if modality.kind == 'image' else 'features'
  never = tuple(c for c in values.constant if c not in (*values.narrow, *values.tiny))
  for positions, what, todo in (
    (never, 'never change in training', 'they carry nothing and can be left out.'),
    (
      values.narrow,
      'vary by less than float32 can hold well at their size, if they vary at all',
      'give their difference to some fixed value, or another unit.',
    ),
    (values.tiny, 'vary by less than a millionth, too little to be rescaled', 'give them in a smaller unit.'),
  ):
    if positions:
      which = listed([str(c) for c in positions])
      yield Advice(
        'problem' if len(values.constant) == width else 'note',
        'constant',
        f'{name}: {noun} that {what}: {len(positions)} of {width} (position {which}).',
        f'Check that they were extracted properly; {todo}',
      )
  if values.scale_ratio >= _WILD_SCALE:
    yield Advice(
      'note',
      'scale',
      f'{name}: the scales of its features differ by a factor of {factor(values.scale_ratio)} (largest at position '
      f'{values.widest}, smallest at {values.narrowest}).',
      'Nothing, unless a unit is mistaken: training rescales every feature by itself.',
    )


def _about_lengths(findings: Findings, modality: ModalityFindings) -> Iterator[Advice]:
  lengths, size = modality.lengths.get('train'), findings.sizes['train']
  if lengths is None or modality.padding is not None or modality.empty['train'] == size:
    return
  if lengths.full < _OFTEN_FULL * size:
    return
  everyone, longest = lengths.full == size, modality.shape[0]
  yield Advice(
    'note',
    'full length',
    f'{modality.name}: {"all" if everyone else share_of(lengths.full, size)} of the training samples '
    f'{"fill" if everyone else verb(lengths.full, "fill", "fills")} all '
    f'{counted(longest, "token" if modality.kind == "tokens" else "frame")}.',
    'If lengths differ in the source, padding was counted as content: give the lengths.'
    if everyone
    else 'Longer ones may have been cut; raise the limit (max_length of a folder) if the end matters.',
  )


def _about_tokens(modality: ModalityFindings) -> Iterator[Advice]:
  if modality.tokens is None:
    return
  for split, share in modality.tokens.unseen.items():
    if share >= _OFTEN_UNSEEN:
      yield Advice(
        'note',
        'unseen tokens',
        f'{modality.name}: {percent(share)} of the {split} tokens never occur in training.',
        'Models cannot know them; a coarser vocabulary (subwords) or pretrained features would help.',
      )
  if modality.tokens.unknown['train'] >= _OFTEN_UNSEEN:
    yield Advice(
      'note',
      'unknown tokens',
      f'{modality.name}: {percent(modality.tokens.unknown["train"])} of the training tokens are the unknown id.',
      'Use a larger vocabulary.',
    )


def _about_empty(findings: Findings, modality: ModalityFindings) -> Iterator[Advice]:
  shares = {split: count / max(findings.sizes[split], 1) for split, count in modality.empty.items()}
  # What single cells destroyed is not what nobody has.
  by_cells = (
    _scattered(modality) and modality.kind != 'sequence' and modality.lost_frames > sum(modality.empty.values()) / 2
  )
  cells = 'Mostly because of single NaN or infinite cells: see what is said of those.'
  for split, share in shares.items():
    if share == 1 and findings.sizes[split]:
      yield Advice(
        'problem',
        'missing',
        f'{modality.name} is all zero in every {split} sample.',
        cells if by_cells else 'Check how it was exported; if you do not have it, remove the modality.',
      )
  if 1 in shares.values():
    return
  by_split = ', '.join(f'{percent(share)} in {split}' for split, share in shares.items())
  if max(shares.values()) - min(shares.values()) >= _EMPTY_DIFFERS:
    yield Advice(
      'problem',
      'missing',
      f'{modality.name} is all zero far more often in one split than in another: {by_split}.',
      cells if by_cells else 'Draw the splits alike, or results will mostly show that difference.',
    )
  elif max(shares.values()) >= _OFTEN_EMPTY:
    yield Advice(
      'note',
      'missing',
      f'{modality.name} is all zero, so probably missing: {by_split}.',
      cells if by_cells else 'Models here can learn from such data; do not fill the gaps.',
    )
  frames = modality.empty_frames.get('train', 0.0)
  if frames >= _OFTEN_EMPTY and modality.padding is None:
    yield Advice(
      'note',
      'missing frames',
      f'{modality.name}: {percent(frames)} of the training frames are all zero.',
      cells
      if _scattered(modality) and modality.lost_frames > frames * modality.frames / 2
      else 'Expected where a detector failed or the signal is silent; if they are padding behind the content, give the '
      'true lengths.',
    )


def _scattered(modality: ModalityFindings) -> bool:
  """Whether NaN and infinities are single cells that take others with them, not frames that are none throughout."""
  return 2 * modality.non_finite < modality.lost_frames * _width(modality)


def _width(modality: ModalityFindings) -> int:
  """Numbers in one frame (vector, image)."""
  return math.prod(modality.shape[1:] if modality.kind == 'sequence' else modality.shape)


def _frames(modality: ModalityFindings) -> str:
  return {'sequence': 'frames', 'image': 'images'}.get(modality.kind, 'samples')
