"""DREAM, top to bottom: encode -> recognise -> assess -> reconstruct -> fuse.

Source: Bi et al., "Two Challenges, One Solution: Robust Multimodal Learning through Dynamic Modality Recognition and
Enhancement", Findings of EMNLP 2025. Only the paper's abstract is public. It fixes the stages (sample-level assessment
of modalities, selective reconstruction of missing or under-performing ones, soft-mask fusion by estimated contribution)
and that neither full-modality training data nor annotations of what is missing are needed. Every formula here is ours.

No mask enters the forward pass: what is missing has to be recognised from the inputs. B samples, M modalities, D latent
width, K natural parameters of the target's distribution (see `evidence.py`), G coalitions.
"""

import dataclasses
from typing import Literal

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from dream_jax.models import evidence
from dream_jax.models.coalitions import coalition_matrix
from dream_jax.models.dream.contribution import CreditKind, certainty_credit, expected_credit
from dream_jax.models.dream.frames import FrameRecogniser, Judged, fit_frames, left
from dream_jax.models.dream.fusion import SoftMaskFusion
from dream_jax.models.dream.losses import LossWeights, dream_terms
from dream_jax.models.dream.recognition import Recogniser, empty_slots
from dream_jax.models.dream.reconstruction import Reconstructor
from dream_jax.models.dream.typicality import fit_typicality
from dream_jax.models.encoders import Encoders, Inputs
from dream_jax.models.layers import SlotDense
from dream_jax.models.model import Batch, Model
from dream_jax.models.outputs import Outputs
from dream_jax.models.sizes import Sizes
from dream_jax.settings import setting

# Shares stay defined for a sample of which no modality says anything.
_SMALLEST_MERIT = 0.02


@dataclasses.dataclass(frozen=True)
class DreamSettings(Sizes):
  """Sizes and switches of DREAM; every part can be turned off for an ablation."""

  evidence_scale: float = setting(
    1.0, 'what unimodal heads say is multiplied by this; the smaller, the slower they learn', least=1e-6, most=1000
  )
  recognise: bool = setting(True, 'estimate which slots hold real content; without it every slot counts as real')
  frames: bool = setting(False, 'recognition judges frames of sequences; encoders read what is left, gaps interpolated')
  agreement: bool = setting(True, 'recognition lets modalities testify about each other')
  typicality: bool = setting(True, 'recognition knows the second moments of real features before training')
  assess: bool = setting(True, 'estimate contributions; without it they are the presence alone')
  game: Literal['expected', 'certainty'] = setting(
    'expected',
    "what a coalition is worth: 'expected', the probability it gives to the target, expected over what is believed of"
    " the target; or 'certainty', how sure it is",
  )
  credit: CreditKind = setting(
    'shapley',
    "what a modality gets of it: its Shapley value, what leaving it out would cost ('leave_one_out'), or what it is"
    " worth alone ('confidence'; with the game of certainty it sees nothing of the other modalities)",
  )
  sharpness: float = setting(
    0.5,
    'beta in w_m = (M pi_m)^beta p_m, pi the estimated shares and p the presence: 0 ignores the shares, 1 takes them at'
    ' face value',
    least=0,
    most=10,
  )
  reconstruct: Literal['selective', 'always', 'never'] = setting(
    'selective', "'selective' replaces latents by the gate, 'always' fully, 'never' leaves them"
  )
  gate_threshold: float = setting(
    0.3, 'w_m below which a modality is replaced (an equal share counts 1)', least=0, most=1000
  )
  gate_temperature: float = setting(0.1, 'softness of the gate', least=1e-6, most=1000)
  fusion: Literal['soft_mask', 'hard_mask', 'uniform', 'posterior'] = setting(
    'soft_mask',
    "'soft_mask' weighs by contribution, 'hard_mask' rounds the weights to 0 or 1, 'uniform' ignores them, and"
    " 'posterior' mixes the predictions of all coalitions by their posterior probability",
  )

  def sizes(self) -> Sizes:
    """The part that the controls share."""
    return Sizes(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Sizes)})


@flax.struct.dataclass
class Trace:
  """Everything a forward pass computes; the losses read it, users get `Outputs`."""

  outputs: Outputs
  unimodal_evidence: jax.Array  # [B, M, K]
  log_coalition: jax.Array  # [B, G] log P(S | x)
  credit: jax.Array | None  # [B, M] before clipping
  coalition_predictions: jax.Array  # [B, G, C]
  confidence: jax.Array | None  # [B, M] predicted quality of the reconstructions
  prior: jax.Array  # [K]
  judged: Judged | None  # frames; None where no modality has any


class Dream(Model):
  """DREAM as a Flax module: `apply({'params': p}, inputs, train=False) -> Outputs`.

  Attributes:
    sizes: sizes and switches.
    weights: weights of the terms of the training loss.
  """

  sizes: DreamSettings = DreamSettings()
  weights: LossWeights = LossWeights()

  undecayed = ('recogniser', 'frames')

  @property
  def reads_clean(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
    """Whether training compares reconstructions with what was removed."""
    return self.sizes.reconstruct != 'never'

  @property
  def judges_frames(self) -> bool:
    """Whether there are frames, and they are judged."""
    return self.sizes.recognise and self.sizes.frames and any(m.has_length for m in self.spec.modalities)

  def setup(self):
    s = self.sizes
    k = evidence.num_natural(self.spec)
    self.encoders = Encoders(self.spec, s)
    self.heads = SlotDense(k)
    self.prior = self.param('prior', nn.initializers.zeros, (k,))
    if self.judges_frames:
      self.frames = FrameRecogniser(self.spec, s.dtype)
    if s.recognise:
      self.recogniser = Recogniser(self.spec, s.dtype, s.agreement, s.typicality)
    if s.reconstruct != 'never':
      self.reconstructor = Reconstructor(s.hidden)
    self.fusion = SoftMaskFusion(self.spec, s.hidden, s.head_dropout)

  @nn.nowrap
  def fitted(self, features, zero):
    """What recognition knows of real content before training, see `typicality.py`."""
    found = {'frames': fit_frames(self.spec, zero)} if self.judges_frames else {}
    if self.sizes.recognise and self.sizes.typicality:
      fits = fit_typicality(self.spec, features, zero)
      inside = {m.name: m.inside for m in self.spec.modalities}
      found['recogniser'] = {'detector': {f'{inside[name]}_typicality': fit for name, fit in fits.items()}}
    return found

  def __call__(self, inputs: Inputs, *, train: bool = False) -> Outputs:
    """Outputs of a batch; inputs are standardised features, each with batch axis B, and lengths of sequences."""
    return self.trace(inputs, train=train).outputs

  def objective(self, batch: Batch) -> dict[str, jax.Array]:
    """Terms of the training loss, see `losses.py`."""
    return dream_terms(self, batch)

  def judge(self, inputs: Inputs) -> Judged | None:
    """Inputs with their frames judged, if there are any and they are to be."""
    return self.frames(inputs) if self.judges_frames else None

  def encode(self, inputs: Inputs, *, train: bool = False) -> jax.Array:
    """Latents [B, M, D]."""
    judged = self.judge(inputs)
    return self.encoders(inputs if judged is None else judged.inputs, train=train)

  def testify(self, z: jax.Array) -> jax.Array:
    """Evidence [B, M, K] of each latent [B, M, D]."""
    # Steps of the optimiser have one size whatever the gradient: the smaller the scale, the slower heads learn.
    return evidence.from_raw(self.spec, self.sizes.evidence_scale * self.heads(z))

  def unimodal(self, z: jax.Array) -> jax.Array:
    """Predictions [B, M, C] of each latent [B, M, D] by itself."""
    return evidence.predict(self.spec, self.prior, self.testify(z))

  def trace(self, inputs: Inputs, *, train: bool) -> Trace:
    """The forward pass with its intermediate values."""
    s, m = self.sizes, self.spec.num_modalities
    # Encode. Each modality also predicts the target by itself: its evidence.
    judged = self.judge(inputs)
    z = self.encoders(inputs if judged is None else judged.inputs, train=train)
    eta = self.testify(z)
    batch = z.shape[0]
    coalitions = jnp.asarray(coalition_matrix(m), z.dtype)
    weights = jnp.broadcast_to(coalitions, (batch, *coalitions.shape))
    every_coalition = self.fusion(z, weights, eta, weights, self.prior, train=train)

    # Recognise which slots hold real content. The task loss must not bend this probability to its own ends.
    if s.recognise:
      log_coalition, presence = self.recogniser(inputs, eta, self.prior, judged)
      trusted = stop_gradient(presence)
    else:
      log_coalition = jnp.broadcast_to(jnp.where(coalitions.sum(-1) == m, 0.0, -1e9), (batch, coalitions.shape[0]))
      presence = trusted = jnp.ones((batch, m), z.dtype)

    # Assess how much each modality contributes to this sample's prediction.
    if s.assess:
      if s.game == 'expected':
        credit = expected_credit(self.spec, self.prior, eta, every_coalition, log_coalition, kind=s.credit)
      else:
        credit = certainty_credit(self.spec, self.prior, eta, every_coalition, kind=s.credit)
      # The task loss must not make a modality look better or worse than it is.
      credit = stop_gradient(credit)
      merit = jnp.maximum(credit, 0.0)
      shares = (merit + _SMALLEST_MERIT) / (merit + _SMALLEST_MERIT).sum(-1, keepdims=True)
      contributions = m * merit * trusted
    else:
      credit, shares, contributions = None, jnp.full((batch, m), 1.0 / m, z.dtype), trusted
    standing = (m * shares) ** s.sharpness * trusted  # 1: an equal share that is surely there

    # Reconstruct, selectively: missing and under-performing modalities are replaced, the others left alone.
    if s.reconstruct == 'never':
      gates, reconstructions, confidence = jnp.zeros_like(standing), None, None
      enhanced, evidence_mask, soft_mask = z, standing, standing
    else:
      reconstructions, confidence = self.reconstructor(z, standing)
      if s.reconstruct == 'always':
        gates = jnp.ones_like(standing)
      else:
        gates = jax.nn.sigmoid((s.gate_threshold - standing) / s.gate_temperature)
      enhanced = (1.0 - gates)[..., None] * z + gates[..., None] * reconstructions
      evidence_mask = (1.0 - gates) * standing
      soft_mask = evidence_mask + gates * stop_gradient(confidence)

    # Fuse by soft mask. A reconstruction repeats what others said: it is read, but it is no evidence of its own.
    if s.fusion == 'hard_mask':
      evidence_mask, soft_mask = (jnp.round(jnp.minimum(w, 1.0)) for w in (evidence_mask, soft_mask))
    elif s.fusion == 'uniform':
      evidence_mask = soft_mask = jnp.ones_like(soft_mask)
    if s.fusion == 'posterior':
      prediction = evidence.mixture(self.spec, stop_gradient(log_coalition), every_coalition)
    else:
      prediction = self.fusion(enhanced, soft_mask[:, None], eta, evidence_mask[:, None], self.prior, train=train)[:, 0]
    reported = presence if judged is None else presence * left(self.spec, inputs, judged)
    if s.recognise:
      # Where data lack modalities from the start, raw zeros are normal to recognition, and may tell of the target.
      empty = empty_slots(self.spec, inputs, self.recogniser.variables['params'])
      reported = jnp.where(empty, 0.0, reported)
    outputs = Outputs(
      prediction=prediction,
      contributions=contributions,
      presence=reported,
      gates=gates,
      soft_mask=soft_mask,
      unimodal_predictions=evidence.predict(self.spec, self.prior, eta),
      latents=z,
      reconstructions=reconstructions,
    )
    return Trace(outputs, eta, log_coalition, credit, every_coalition, confidence, self.prior, judged)
