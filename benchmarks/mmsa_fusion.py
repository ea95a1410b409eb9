r"""Records what MMSA's own TFN, LMF and MulT answer, for `tests/test_mmsa_fusion.py` to compare with.

  python benchmarks/mmsa_fusion.py --out=tests/golden/mmsa_fusion.npz [--env=FOLDER]

Installs MMSA 2.2.1 and PyTorch in an environment of their own (FOLDER, kept if it is named) and runs there. MMSA's
model files run unchanged; the packages around them, which import far more than the models need, are stood in for. Small
sizes, random weights, evaluation mode. Stored are the inputs of the fusion part, its weights and the model's output.
MMSA builds MulT's transformers without the positions that the paper describes; they are switched on here.
"""

import argparse
import importlib
import pathlib
import subprocess
import sys
import tempfile
import types
import zipfile

_VERSION = '2.2.1'


def main() -> None:
  """Makes the environment and runs this file in it, or, inside it, records."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--out', required=True)
  parser.add_argument('--env', default=None)
  parser.add_argument('--mmsa', default=None, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.mmsa:
    record(pathlib.Path(args.mmsa), args.out)
    return
  with tempfile.TemporaryDirectory() as temporary:
    env = pathlib.Path(args.env or temporary)
    python = env / 'bin' / 'python'
    if not python.exists():
      subprocess.run([sys.executable, '-m', 'venv', str(env)], check=True)
      subprocess.run([python, '-m', 'pip', 'install', '-q', 'torch', 'numpy'], check=True)
    source = env / 'mmsa'
    if not source.exists():
      download = [python, '-m', 'pip', 'download', '-q', f'MMSA=={_VERSION}', '--no-deps', '-d', str(env)]
      subprocess.run(download, check=True)
      zipfile.ZipFile(next(env.glob('MMSA-*.whl'))).extractall(source)
    subprocess.run([python, __file__, f'--mmsa={source}', f'--out={args.out}'], check=True)


def record(source: pathlib.Path, out: str) -> None:
  """Runs the three models and writes one .npz: 'MODEL/inputs/NAME', 'MODEL/weights/NAME', 'MODEL/output'."""
  import numpy as np
  import torch

  stand_in(source)
  arrays = {}
  torch.manual_seed(2)
  for name, record_model in (('tfn', vectors('TFN')), ('lmf', vectors('LMF')), ('mult', sequences)):
    inputs, weights, output = record_model()
    arrays |= {f'{name}/inputs/{k}': v.detach().numpy() for k, v in inputs.items()}
    arrays |= {f'{name}/weights/{k}': v.detach().numpy() for k, v in weights.items()}
    arrays[f'{name}/output'] = output.detach().numpy()
  np.savez_compressed(out, **arrays)
  print(f'{out}: {len(arrays)} arrays, {pathlib.Path(out).stat().st_size} bytes, torch {torch.__version__}')


def stand_in(source: pathlib.Path) -> None:
  """Packages without their __init__ files, and the two names that the models take from one of them."""
  for package in ('MMSA', 'MMSA.models', 'MMSA.models.singleTask', 'MMSA.models.subNets'):
    module = types.ModuleType(package)
    module.__path__ = [str(source.joinpath(*package.split('.')))]
    sys.modules[package] = module
  nets = importlib.import_module('MMSA.models.subNets.FeatureNets')
  subnets = sys.modules['MMSA.models.subNets']
  subnets.SubNet, subnets.TextSubNet, subnets.BertTextEncoder = nets.SubNet, nets.TextSubNet, None


def randomise(model, scale: float = 0.3) -> None:
  """Weights far from their starting values, so that no term vanishes."""
  import torch

  with torch.no_grad():
    for name, p in model.named_parameters():
      if p.requires_grad:
        shift = 1.0 if 'layer_norm' in name and name.endswith('weight') else 0.0
        p.copy_(shift + scale * torch.randn_like(p))
  model.eval()


def vectors(name: str):
  """A recorder of TFN or LMF: features after the subnetworks in, prediction out."""
  import torch

  def run():
    options = types.SimpleNamespace(
      feature_dims=(6, 5, 4), hidden_dims=(8, 4, 4), text_out=4, dropouts=(0.0, 0.0, 0.0, 0.0), post_fusion_dim=6,
      num_classes=3, train_mode='classification' if name == 'LMF' else 'regression', rank=3,
    )  # fmt: skip
    model = getattr(importlib.import_module(f'MMSA.models.singleTask.{name}'), name)(options)
    randomise(model, 0.7)
    found = model(3 * torch.randn(5, 7, 6), 3 * torch.randn(5, 1, 5), 3 * torch.randn(5, 1, 4))
    inputs = {'text': found['Feature_t'], 'audio': found['Feature_a'], 'vision': found['Feature_v']}
    weights = {k: v for k, v in model.named_parameters() if 'subnet' not in k and v.requires_grad}
    return inputs, weights, found['M']

  return run


def sequences():
  """MulT on sequences of different lengths, features already of the width that it works with."""
  import torch

  none = dict.fromkeys(
    ('attn_dropout', 'attn_dropout_a', 'attn_dropout_v', 'relu_dropout', 'embed_dropout', 'res_dropout',
     'output_dropout', 'text_dropout'), 0.0,
  )  # fmt: skip
  options = types.SimpleNamespace(
    use_bert=False, dst_feature_dim_nheads=(4, 2), feature_dims=(4, 4, 4), nlevels=2, attn_mask=True, num_classes=2,
    train_mode='classification', conv1d_kernel_size_l=1, conv1d_kernel_size_a=1, conv1d_kernel_size_v=1, **none,
  )  # fmt: skip
  model = importlib.import_module('MMSA.models.singleTask.MULT').MULT(options)
  positions = importlib.import_module('MMSA.models.subNets.transformers_encoder.position_embedding')
  for name, part in model.named_children():
    if name.startswith('trans_'):
      part.embed_positions = positions.SinusoidalPositionalEmbedding(part.embed_dim)
  randomise(model)
  inputs = {'text': torch.randn(3, 5, 4), 'audio': torch.randn(3, 7, 4), 'vision': torch.randn(3, 4, 4)}
  found = model(inputs['text'], inputs['audio'], inputs['vision'])
  weights = {k: v for k, v in model.named_parameters() if v.requires_grad and not k.startswith('proj_')}
  return inputs, weights, found['M']


if __name__ == '__main__':
  main()
