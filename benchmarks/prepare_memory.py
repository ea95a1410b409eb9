r"""Peak memory of reading an MMSA pickle, of preparing it and of loading what was prepared, against the file's size.

  python benchmarks/prepare_memory.py [--samples=3000] [--protocol=4]

Writes a file of generated values in the layout of MMSA's aligned CMU-MOSEI pickle into a temporary folder. Each stage
runs in a process of its own; what the process had before the stage (Python, TensorFlow) is subtracted.
"""

import argparse
import os
import pickle
import subprocess
import sys
import tempfile

import numpy as np

_STAGES = {
  'read': 'from dream_jax.data.pickles.safe_pickle import load_arrays; start(); load_arrays(sys.argv[1])',
  'prepare': (
    'from dream_jax.data import tfds_store; from dream_jax.machine import host_tensorflow; '
    'from dream_jax.data.catalogue import builder_class; '
    'host_tensorflow.load(); made = builder_class("cmu_mosei"); import tensorflow_datasets, tensorflow; start(); '
    'tfds_store.prepared_builder(made, "aligned", tfds_dir=sys.argv[2], '
    'manual_dir=sys.argv[3], folder=None, options={})'
  ),
  'load': (
    'from dream_jax.machine import host_tensorflow; from dream_jax.data.datasets import load_dataset; '
    'host_tensorflow.load(); import tensorflow_datasets, tensorflow; start(); '
    'load_dataset("cmu_mosei/aligned", tfds_dir=sys.argv[2])'
  ),
}
_HARNESS = """
import resource, sys
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
def start():
  global before
  before = peak()
{stage}
print(peak() - before)
"""


def write(path: str, samples: int, protocol: int) -> None:
  """A file of `samples` training rows and a tenth of it for each other split."""
  rng = np.random.default_rng(0)
  content = {}
  for name, n in (('train', samples), ('valid', samples // 10), ('test', samples // 10)):
    bert = np.ones((n, 3, 50), np.int64)
    content[name] = {
      'id': [f'{name}{i}$_$0' for i in range(n)],
      'raw_text': np.array(['text'] * n, dtype=object),
      'text': rng.standard_normal((n, 50, 768), dtype=np.float32),
      'text_bert': bert,
      'audio': rng.standard_normal((n, 50, 74)),
      'vision': rng.standard_normal((n, 50, 35)),
      'regression_labels': rng.uniform(-3, 3, n),
    }
  with open(path, 'wb') as file:
    pickle.dump(content, file, protocol)


def main() -> None:
  """Writes the file, runs the stages and prints a line for each."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--samples', type=int, default=3000)
  parser.add_argument('--protocol', type=int, default=4, choices=range(2, 6))
  arguments = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, 'aligned_50.pkl')
    if os.fork() == 0:  # A child writes: a process keeps the memory that it once had.
      write(path, arguments.samples, arguments.protocol)
      os._exit(0)
    os.wait()
    size = os.path.getsize(path)
    print(f'file: {size / 1e6:.0f} MB, protocol {arguments.protocol}, {arguments.samples} training samples')
    for name, stage in _STAGES.items():
      command = [sys.executable, '-c', _HARNESS.format(stage=stage), path, os.path.join(folder, 'tfds'), folder]
      done = subprocess.run(command, check=True, capture_output=True, text=True)
      taken = int(done.stdout.split()[-1])
      print(f'{name:8s} peak {taken / 1e6:7.0f} MB, {taken / size:.2f} of the file', flush=True)


if __name__ == '__main__':
  main()
