"""MMIN: the embeddings of missing modalities are imagined from those of the available ones, and back.

Zhao, Li, Jin: Missing Modality Imagination Network for Emotion Recognition with Uncertain Missing Modalities. ACL 2021.

  h = [h_1 .. h_M]                                      embeddings of what arrived
  h^(0) = h,  c_k = E_k(h^(k-1)),  h^(k) = h^(k-1) + D_k(c_k)      block k of B: a cascade residual autoencoder
  h' = h^(B),  C = [c_1 .. c_B]                         imagined embeddings, and the joint representation
  prediction = classifier(C)
  h'' = a second cascade of the imagined embeddings     backward imagination of the available ones
  loss = task + 4 |h' - true embeddings|^2 + 2 |h'' - embeddings of the available|^2    at missing and available slots

Cascade, joint representation and the three losses are those of the paper's method section; the number of blocks and the
weights are those of the released training scripts.

Simplified here:
* The embeddings to imagine come from the encoders in training themselves, on complete inputs and without gradients. The
  published ones come from a frozen copy that a network for complete data was trained with before.
* The published imagination also has to turn available slots into the embedding of zeros, and its backward cascade reads
  all slots. Here each loss is read at its own slots, and the backward cascade sees only what was imagined.
* Nothing tells the model which slots are missing: they hold whatever stands in for their content, zeros or not.
* Encoders, widths and activations are those that all methods share; an autoencoder has one hidden layer on either side.

Needs: complete training data to imagine, out of which the trainer removes modalities. No mask when it predicts.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from dream_jax.models.encoders import Encoders, Inputs
from dream_jax.models.layers import Dropout
from dream_jax.models.model import Batch, Model
from dream_jax.models.objective import task_loss
from dream_jax.models.outputs import Outputs
from dream_jax.parallel import rows


class CascadeResidualAutoencoder(nn.Module):
  """Autoencoders in a row, each correcting what the others made: [B, M, D] -> [B, M, D] and codes [B, blocks code]."""

  hidden: int
  code: int
  blocks: int

  @nn.compact
  def __call__(self, h: jax.Array) -> tuple[jax.Array, jax.Array]:
    x = h.reshape(h.shape[0], -1)
    codes = []
    for i in range(self.blocks):
      code = nn.Dense(self.code, name=f'encode{i}_out')(nn.gelu(nn.Dense(self.hidden, name=f'encode{i}_in')(x)))
      x = x + nn.Dense(x.shape[-1], name=f'decode{i}_out')(nn.gelu(nn.Dense(self.hidden, name=f'decode{i}_in')(code)))
      codes.append(code)
    return x.reshape(h.shape), jnp.concatenate(codes, axis=-1)


class Mmin(Model):
  """Missing Modality Imagination Network.

  Attributes:
    blocks: autoencoders of a cascade.
    imagination: weight of the distance between imagined and true embeddings of removed modalities.
    cycle: weight of the distance between available embeddings and those imagined back.
  """

  blocks: int = 5
  imagination: float = 4.0
  cycle: float = 2.0

  reads_clean = True

  def setup(self):
    s = self.sizes
    self.encoders = Encoders(self.spec, s)
    self.forth = CascadeResidualAutoencoder(s.hidden, s.width, self.blocks)
    self.back = CascadeResidualAutoencoder(s.hidden, s.width, self.blocks)
    self.head_in = nn.Dense(s.hidden)
    self.head_dropout = Dropout(s.head_dropout)
    self.head_out = nn.Dense(self.spec.num_outputs)

  def __call__(self, inputs: Inputs, *, train: bool = False) -> Outputs:
    """Outputs of a batch."""
    z = self.encoders(inputs, train=train)
    imagined, codes = self.forth(z)
    if self.is_initializing():  # Only the objective imagines back.
      self.back(z)
    h = self.head_dropout(nn.gelu(self.head_in(codes)), deterministic=not train)
    return Outputs(prediction=self.head_out(h), latents=z, reconstructions=imagined)

  def objective(self, batch: Batch) -> dict[str, jax.Array]:
    """The task loss, and imagination forth and back."""
    out = self(batch['inputs'], train=True)
    imagined = out.reconstructions
    assert imagined is not None
    truth = stop_gradient(self.encoders(batch['clean'], train=False))
    removed = (batch['kept'] < 1.0).astype(truth.dtype)
    # Where nothing was removed nothing was imagined that the way back could start from.
    available = (1.0 - removed) * removed.max(-1, keepdims=True)
    back, _ = self.back(removed[..., None] * imagined)
    return {
      'task': task_loss(self.spec, out.prediction, batch['label']),
      'imagination': self.imagination * _distance(imagined, truth, removed),
      'cycle': self.cycle * _distance(back, truth, available),
    }


def _distance(x: jax.Array, target: jax.Array, slots: jax.Array) -> jax.Array:
  """Mean squared distance of [B, M, D] over the slots that are 1 in [B, M]; zero without any."""
  return (slots * jnp.square(x - target).mean(-1)).sum() / rows.divisor(slots.sum())
