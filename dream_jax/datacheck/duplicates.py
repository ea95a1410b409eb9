"""The same content twice: across splits a leak, inside a split a sample that counts double."""

import dataclasses
import hashlib
from collections.abc import Mapping

import numpy as np

from dream_jax.data.datasets import Split
from dream_jax.datacheck import content
from dream_jax.spec import DatasetSpec, ModalitySpec

WHOLE = 'whole samples'
_MAX_EXAMPLES = 3
_DIGEST = 16


@dataclasses.dataclass(frozen=True)
class Repeats:
  """How much of one split is found in another, or earlier in itself.

  Attributes:
    what: name of a modality, or WHOLE.
    first: the split that has the content first; 'train' comes before 'validation', 'validation' before 'test'.
    second: the split whose samples are counted; the same as `first` for repeats inside a split.
    count: samples of `second` whose content is in `first`; inside a split, those that repeat an earlier one.
    examples: up to three pairs of ids, (in first, in second).
  """

  what: str
  first: str
  second: str
  count: int
  examples: tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class Conflicts:
  """Identical whole samples that carry different labels.

  Attributes:
    groups: number of contents that occur with more than one label.
    samples: number of samples in those groups.
    examples: up to three pairs of ids that disagree.
  """

  groups: int
  samples: int
  examples: tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class RepeatedIds:
  """Ids that name more than one sample.

  Attributes:
    count: number of such ids.
    examples: up to three of them.
  """

  count: int
  examples: tuple[str, ...]


def find_repeats(spec: DatasetSpec, splits: Mapping[str, Split]) -> tuple[tuple[Repeats, ...], Conflicts]:
  """Repeated content of each modality and of whole samples, for every pair of splits; and labels that contradict.

  What is all zeros is no content: two samples that lack a modality do not repeat each other in it.
  """
  digests = {name: {m.name: _digests(m, split) for m in spec.modalities} for name, split in splits.items()}
  whole = {name: _joined(list(by_modality.values())) for name, by_modality in digests.items()}
  names = list(splits)
  repeats = []
  for what in (*spec.names, WHOLE):
    found = {name: whole[name] if what == WHOLE else digests[name][what] for name in names}
    for j, second in enumerate(names):
      repeats += [_repeats(what, splits, found, first, second) for first in names[: j + 1]]
  return tuple(repeats), _conflicts(splits, whole)


def find_repeated_ids(splits: Mapping[str, Split]) -> RepeatedIds:
  """Ids that occur more than once, in one split or in several."""
  ids, counts = np.unique(np.concatenate([split.ids for split in splits.values()]), return_counts=True)
  twice = [str(i) for i in ids[counts > 1]]
  return RepeatedIds(len(twice), tuple(twice[:_MAX_EXAMPLES]))


def _digests(modality: ModalitySpec, split: Split) -> list[bytes]:
  """A digest of what is inside the length of every sample; b'' where there is nothing."""
  values = split.features[modality.name]
  nothing = content.empty(modality, split)
  lengths = split.features[modality.length_name] if modality.has_length else None
  result = []
  for row in range(len(values)):
    if nothing[row]:
      result.append(b'')
      continue
    sample = values[row] if lengths is None else values[row, : lengths[row]]
    # Adding zero turns -0.0 into 0.0: equal numbers, other bytes.
    result.append(hashlib.blake2b((sample + sample.dtype.type(0)).tobytes(), digest_size=_DIGEST).digest())
  return result


def _joined(digests: list[list[bytes]]) -> list[bytes]:
  """Digests of whole samples from those of their modalities; b'' where every modality is empty."""
  return [
    b''.join(d or bytes(_DIGEST) for d in sample) if any(sample) else b'' for sample in zip(*digests, strict=True)
  ]


def _repeats(
  what: str, splits: Mapping[str, Split], digests: Mapping[str, list[bytes]], first: str, second: str
) -> Repeats:
  owner: dict[bytes, int] = {}
  pairs = []
  if first != second:
    for row, digest in enumerate(digests[first]):
      owner.setdefault(digest, row)
  for row, digest in enumerate(digests[second]):
    if digest and digest in owner:
      pairs.append((owner[digest], row))
    elif digest and first == second:
      owner[digest] = row
  a, b = splits[first].ids, splits[second].ids
  return Repeats(what, first, second, len(pairs), tuple((str(a[i]), str(b[j])) for i, j in pairs[:_MAX_EXAMPLES]))


def _conflicts(splits: Mapping[str, Split], whole: Mapping[str, list[bytes]]) -> Conflicts:
  groups: dict[bytes, list[tuple[str, bytes]]] = {}
  for name, split in splits.items():
    for row, digest in enumerate(whole[name]):
      if digest:
        groups.setdefault(digest, []).append((str(split.ids[row]), split.label[row].tobytes()))
  torn = [group for group in groups.values() if len({label for _, label in group}) > 1]
  examples = []
  for (one, label), *others in torn[:_MAX_EXAMPLES]:
    examples.append((one, next(other for other, its in others if its != label)))
  return Conflicts(len(torn), sum(map(len, torn)), tuple(examples))
