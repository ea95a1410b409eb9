"""The pickle reader: arrays come back bit by bit and mostly unread; whatever else a pickle asks for is refused."""

import collections
import os
import pickle
import pickletools
import resource
import struct
import time
import tracemalloc

import numpy as np
import pytest

from dream_jax.data.pickles.file_arrays import FileArray
from dream_jax.data.pickles.safe_pickle import load_arrays
from dream_jax.errors import UserError
from dream_jax.machine import memory


def write(folder, content, protocol=4):
  path = folder / 'file.pkl'
  path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol=protocol))
  return str(path)


def refusal(folder, content):
  with pytest.raises(UserError) as caught:
    load_arrays(write(folder, content))
  assert '\n' not in str(caught.value)
  return str(caught.value)


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
def test_every_protocol_of_arrays_and_strings_is_read(protocol, tmp_path):
  content = {
    'f': np.arange(6.0).reshape(2, 3),
    'order': np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3)),
    'names': np.array(['a', 'b']),
    'objects': np.array(['x', 'yy'], dtype=object),
    'scalar': np.float64(2.5),
    'bytes': b'\x00\xff',
    'list': [1, 2.5, 'c', None, True, (1, {2})],
  }
  read = load_arrays(write(tmp_path, content, protocol))
  assert read.keys() == content.keys()
  assert read['list'] == content['list']
  assert read['scalar'] == 2.5
  assert read['bytes'] == content['bytes']
  for key in ('f', 'order', 'names', 'objects'):
    np.testing.assert_array_equal(read[key], content[key])


@pytest.mark.parametrize('protocol', [2, 4])
def test_dictionaries_of_other_kinds_are_dictionaries(protocol, tmp_path):
  grouped = collections.defaultdict(list, a=[1, 2])
  ordered = collections.OrderedDict([('y', np.arange(3)), ('x', 1)])
  read = load_arrays(write(tmp_path, [grouped, ordered], protocol))
  assert [type(part) for part in read] == [dict, dict]
  assert read[0] == {'a': [1, 2]}
  assert list(read[1]) == ['y', 'x']


class Payload:
  """Pickles as a call of `function`; one with a fifth argument, as an array does, has that as its state."""

  def __init__(self, function, *args):
    self.function, self.args = function, args

  def __reduce__(self):
    return (self.function, self.args[:3], self.args[3]) if len(self.args) == 4 else (self.function, self.args)


def test_payloads_are_refused_by_name_and_not_run(tmp_path):
  trace = tmp_path / 'trace'
  for payload, name in (
    (Payload(os.system, f'touch {trace}'), 'posix.system'),
    (Payload(eval, f"open('{trace}', 'w')"), 'builtins.eval'),
    (Payload(getattr, 'text', 'upper'), 'builtins.getattr'),
  ):
    for content in (payload, {'train': {'id': [payload]}}, np.array([payload], dtype=object)):
      message = refusal(tmp_path, content)
      assert f'asks for {name}' in message
      assert 'nothing of it was run' in message
      assert not trace.exists()
  pickle.loads(pickle.dumps(Payload(os.system, f'touch {trace}')))
  assert trace.exists()  # The payload works where it is not refused.


class Harmless:
  """A class of the user's own: its instances are no data either."""


@pytest.mark.parametrize('protocol', range(6))
def test_instances_of_any_class_are_refused(protocol, tmp_path):
  assert 'Harmless' in refusal(tmp_path, pickle.dumps({'train': Harmless()}, protocol=protocol)) or protocol < 2


def test_dotted_names_do_not_reach_further(tmp_path):
  # Protocol 4 looks up dotted names: numpy.ndarray.__class__ must not pass for numpy.ndarray.
  for module, name in (('numpy', 'ndarray.__class__'), ('builtins', 'str.join'), ('os', 'system')):
    program = b'\x80\x04' + b''.join(b'\x8c' + bytes([len(s)]) + s.encode() for s in (module, name)) + b'\x93.'
    assert f'asks for {module}.{name}' in refusal(tmp_path, program)


def test_object_arrays_and_foreign_codecs_are_refused(tmp_path):
  assert 'array of Python objects' in refusal(tmp_path, {'train': [np.array([1, 'a'], dtype=object)]})
  program = b'\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.'
  assert "encoding 'rot13'" in refusal(tmp_path, program)


def test_structured_arrays_are_refused(tmp_path):
  assert 'numpy.dtype' in refusal(tmp_path, np.zeros(3, [('a', 'f4'), ('b', 'i4')]))
  assert 'numpy.dtype' in refusal(tmp_path, np.zeros(3, 'datetime64[s]'))


@pytest.mark.parametrize(
  'program',
  [
    b'cbuiltins\nbytes\n(J\xff\xff\xff\x7ftR.',  # bytes(2**31 - 1): zeros without end
    b'cbuiltins\nbytearray\n(J\xff\xff\xff\x7ftR.',
    b'\x80\x04\x8e' + struct.pack('<Q', 1 << 60) + b'ab.',  # a string longer than the file
    b'\x80\x04\x95' + struct.pack('<Q', 1 << 60) + b'\x8e' + struct.pack('<Q', 1 << 59) + b'.',  # in a frame
    b'cnumpy\nndarray\n(J\xff\xff\xff\x7ftR.',
    b'cbuiltins\nset\n}X\x01\x00\x00\x00ai}b.',  # a state for something that has none
  ],
)
def test_hostile_sizes_and_states_are_refused(program, tmp_path):
  tracemalloc.start()
  try:
    refusal(tmp_path, program)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
  finally:
    tracemalloc.stop()


def test_the_reader_itself_cannot_be_changed(tmp_path):
  # BUILD with a state sets attributes; on a class that the reader uses it would change every later reading.
  program = b'\x80\x02cnumpy\nndarray\nN}X\x09\x00\x00\x00set_stateNs\x86b.'
  assert 'a state for type' in refusal(tmp_path, program)
  array = np.arange(4.0)
  np.testing.assert_array_equal(load_arrays(write(tmp_path, array)), array)


def test_parts_that_occur_twice_stay_one_object(tmp_path):
  shared = [np.arange(3)]
  found = load_arrays(write(tmp_path, {'a': shared, 'b': [shared, shared]}))
  assert found['a'] is found['b'][0] is found['b'][1]


def _text(text):
  return b'\x8c' + bytes([len(text)]) + text.encode()


def _name(module, name):
  return _text(module) + _text(name) + b'\x93'


def _doubled(first, times, *, kind):
  """Memo `times`: `first`, then over and over a list or tuple of two of what was there before."""
  program = first + b'q\x00'
  for i in range(times):
    two = b'h' + bytes([i]) + b'h' + bytes([i])
    program += b'0' + (b'](' + two + b'e' if kind is list else two + b'\x86') + b'q' + bytes([i + 1])
  return program


_N = 300_000
_TEXT = b'X' + struct.pack('<I', 8000) + b'a' * 8000 + b'q\x000'
_FORTRAN = b'B' + struct.pack('<I', 40_000) + bytes(40_000) + b'q\x000' + _name('numpy', 'dtype') + _text('i1')
_FORTRAN += b'\x85Rq\x010' + _name('numpy.core.numeric', '_frombuffer') + b'q\x020M\x40\x9c\x85q\x030' + _text('F')
_FORTRAN += b'q\x040('
_OBJECTS = b'](' + b'\x8c\x01a' * 50_000 + b'eq\x000' + _name('numpy', 'dtype') + _text('O8') + b'\x85Rq\x010'
_OBJECTS += _name('numpy', 'ndarray') + b'q\x020M\x50\xc3\x85q\x030('


@pytest.mark.parametrize(
  ('program', 'expected'),
  [
    (b']' * _N + b'a' * (_N - 1) + b'.', 'nested more than 32 deep'),
    (b'(' * _N + b'.', 'nested more than 32 deep'),
    (b')' + b'\x85' * _N + b'.', 'nested more than 32 deep'),
    (_doubled(b'](NNNNe', 31, kind=list) + b'.', 'by references to what it has once'),
    (_doubled(b'](NNNNe', 60, kind=list) + b'.', 'nested more than 32 deep'),
    (b']q\x00h\x00a.', 'a container that holds itself'),
    (b'}q\x00' + _text('a') + b'h\x00s.', 'a container that holds itself'),
    # The hash of tuples of tuples, and one hash for all keys.
    (b'}' + _doubled(b')', 60, kind=tuple) + b'Ns.', 'a key that is no text or small number'),
    (b'\x8f(' + _doubled(b')', 60, kind=tuple) + b'\x90.', 'a key that is no text or small number'),
    (
      b'}(' + b''.join(b'\x8a\x0b' + ((2**61 - 1) * i).to_bytes(11, 'little') + b'N' for i in range(2000)) + b'u.',
      'a key',
    ),
    (b'}]Ns.', 'a key that is no text or small number (<list>)'),
    # What a message would print.
    (_doubled(b']', 60, kind=list) + _name('numpy', 'dtype') + b'h\x3c\x85R.', 'numpy.dtype(<list>)'),
    (b'\x8b' + struct.pack('<i', _N) + b'\x7f' * _N + b'.', f'a whole number of {_N} bytes'),
    (b'I' + b'9' * _N + b'\n.', 'a line is too long'),
    (b'Np' + b'9' * _N + b'\n.', 'a line is too long'),
    # Copies: of a list, of bytes, of a text, of an array that must be loaded, and many references to one text.
    (
      b'](' + b'N' * _N + b'eq\x000' + _name('builtins', 'list') + b'q\x010(' + b'h\x01h\x00\x85R' * 9000 + b't.',
      'of memory for',
    ),
    (_TEXT + _name('_codecs', 'encode') + b'q\x010(' + b'h\x01h\x00\x85R' * 20_000 + b't.', 'of memory for'),
    (_FORTRAN + b'h\x02(h\x00h\x01h\x03h\x04tR' * 3000 + b't.', 'by references to what it has once'),
    (_OBJECTS + b'h\x02(h\x03h\x01\x89h\x00tR' * 3000 + b't.', 'by references to what it has once'),
    (_TEXT + b'(' + b'h\x00' * _N + b't.', 'by references to what it has once'),
    # Objects of some bytes for one byte of the file.
    (b']' + b'\x8f' * 400_000 + b'.', 'of memory for'),
    (b'N' + b'\x94' * 800_000 + b'.', 'of memory for'),
    (_name('collections', 'OrderedDict') + b'(' + b'N' * 9 + b'tR.', 'more than 8'),
    (b'cnumpy\nndarray\n)\x81.', 'opcode 129'),
    (b'cnumpy\nndarray\n)}\x92.', 'opcode 146'),
  ],
  ids=lambda value: value if isinstance(value, str) else 'program',
)
def test_programs_that_ask_for_time_and_memory_are_refused(program, expected, tmp_path):
  path = write(tmp_path, b'\x80\x04' + program)
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  start = time.process_time()
  with pytest.raises(UserError) as caught:
    load_arrays(path)
  assert expected in str(caught.value)
  assert len(str(caught.value)) < 500
  assert time.process_time() - start < 10
  assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000  # Kilobytes.


@pytest.mark.parametrize(
  ('program', 'expected'),
  [
    (b'N.N', '1 bytes are left behind its end'),
    (b'NN.', 'it stops in the middle'),
    (b'(N.', 'it stops in the middle'),
    (b'}(X\x01\x00\x00\x00aK\x01X\x01\x00\x00\x00aK\x02u.', "the key 'a' twice in one dict"),
    (b'}(K\x01u.', 'it is damaged'),
    (b'NNa.', 'items without a list'),
    (b']NNs.', 'entries without a dict'),
    (b'](N\x90.', 'members without a set'),
  ],
)
def test_what_no_writer_of_pickles_leaves_is_damage(program, expected, tmp_path):
  assert expected in refusal(tmp_path, b'\x80\x04' + program)


@pytest.mark.parametrize('change', [(3, 6), (2, 2), (-1, 5), (10**12,), (5.0,)])
def test_shapes_that_do_not_fit_the_bytes_are_refused(change, tmp_path):
  for count in (10, 10_000):  # Loaded at once, and left in the file.
    state = (1, change, np.dtype('f8'), False, bytes(8 * count))
    message = refusal(tmp_path, Payload(np._core.multiarray._reconstruct, np.ndarray, (0,), b'b', state))
    assert 'array' in message


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
@pytest.mark.parametrize('kind', ['f8', '>f4', 'i8', 'U9', 'fortran', 'read-only', 'empty', 'latin'])
def test_large_arrays_come_back_bit_by_bit(protocol, kind, tmp_path):
  rng = np.random.default_rng(0)
  array = rng.integers(-(2**62), 2**62, (700, 5, 3))
  if kind in ('f8', '>f4'):
    array = rng.standard_normal((700, 5, 3)).astype(kind)
  elif kind == 'U9':
    array = np.array([f'name {i}' for i in range(9000)])
  elif kind == 'fortran':
    array = np.asfortranarray(array)
  elif kind == 'read-only':
    array.flags.writeable = False
  elif kind == 'empty':
    array = array[:0]
  elif kind == 'latin':  # Bytes that take one and two bytes of UTF-8, cut at every place.
    array = (np.arange(60_000) * 7 % 256).astype(np.uint8)
  read = load_arrays(write(tmp_path, {'a': [array, array], 'b': 'after'}, protocol))
  assert read['b'] == 'after'
  assert read['a'][0] is read['a'][1]
  found = read['a'][0]
  assert found.shape == array.shape
  np.testing.assert_array_equal(np.asarray(found), array)
  if len(array):
    np.testing.assert_array_equal(found[3], array[3])
    np.testing.assert_array_equal(found[5:9], array[5:9])
  assert isinstance(found, FileArray) == (kind not in ('fortran', 'empty') and protocol > 2)


def test_large_arrays_are_not_loaded(tmp_path):
  path = write(tmp_path, {'a': np.zeros((1000, 5000))})
  tracemalloc.start()
  read = load_arrays(path)
  row = read['a'][17]
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert row.shape == (5000,)
  assert peak < 1_000_000  # Of 40 MB.


def test_what_must_be_loaded_is_refused_where_memory_is_short(tmp_path, monkeypatch):
  monkeypatch.setattr(memory, 'available_bytes', lambda: 1_000_000)
  array = np.zeros((1000, 500))
  assert isinstance(load_arrays(write(tmp_path, array)), FileArray)
  with pytest.raises(UserError, match=r'reading .*file.pkl needs 4.0 MB of memory; 1.0 MB are available'):
    load_arrays(write(tmp_path, np.asfortranarray(array)))
  with pytest.raises(UserError, match=r'needs 4.0 MB'):
    load_arrays(write(tmp_path, array, protocol=2))


def test_strings_of_python_2_are_arrays_too(tmp_path):
  array = np.arange(5000, dtype='<i8') * 977
  modern = pickle.dumps(array, protocol=2)
  text = array.tobytes().decode('latin1')
  # Python 2 wrote the bytes as they are (opcode T), without _codecs.encode.
  encoded = [(op.name, arg, pos) for op, arg, pos in pickletools.genops(modern)]
  assert any(arg == text for _, arg, _ in encoded)
  state = (1, (5000,), np.dtype('<i8'), False, 'PLACE')
  plain = pickle.dumps(Payload(np._core.multiarray._reconstruct, np.ndarray, (0,), b'b', state), protocol=2)
  place = pickle.dumps('PLACE', protocol=2)[2:-3]
  assert plain.count(place) == 1
  old = plain.replace(place, b'T' + struct.pack('<i', array.nbytes) + array.tobytes())
  np.testing.assert_array_equal(np.asarray(load_arrays(write(tmp_path, old))), array)


@pytest.mark.parametrize('share', [0.0, 0.01, 0.3, 0.9, 0.99999])
def test_truncated_files(share, tmp_path):
  data = pickle.dumps({'a': np.zeros((100, 100)), 'b': ['text'] * 5})
  message = refusal(tmp_path, data[: int(len(data) * share)])
  assert 'cannot be read as a pickle' in message
  assert 'fetch it again' in message


def test_no_damage_to_a_file_runs_or_crashes_anything(tmp_path):
  content = {'train': {'id': ['a', 'b'], 'x': np.arange(6.0).reshape(2, 3), 'n': np.float32(1.5)}}
  rng = np.random.default_rng(0)
  for protocol in (2, 4):
    data = np.frombuffer(pickle.dumps(content, protocol=protocol), np.uint8)
    for _ in range(400):
      damaged = data.copy()
      places = rng.integers(0, len(data), rng.integers(1, 4))
      damaged[places] = rng.integers(0, 256, len(places))
      message = ''
      try:
        load_arrays(write(tmp_path, damaged.tobytes()))
      except UserError as error:  # Any other exception fails the test.
        message = str(error)
      assert '\n' not in message
