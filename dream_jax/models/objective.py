"""Losses that every method shares, so that a comparison compares methods."""

import jax
import jax.numpy as jnp

from dream_jax.models import evidence
from dream_jax.models.outputs import Outputs
from dream_jax.spec import DatasetSpec


def task_loss(spec: DatasetSpec, prediction: jax.Array, label: jax.Array) -> jax.Array:
  """Mean loss of predictions [B, C]: cross-entropy, or Huber distance of a standardised target."""
  return -evidence.score(spec, prediction, label).mean()


def label_of_each(predictions: jax.Array, label: jax.Array) -> jax.Array:
  """`label` [B, ...] repeated for each of several predictions [B, M, C]."""
  return jnp.broadcast_to(label[:, None], (*predictions.shape[:2], *label.shape[1:]))


def unimodal_loss(spec: DatasetSpec, outputs: Outputs, label: jax.Array) -> jax.Array:
  """Sum over modalities of the task loss of what each predicts alone."""
  each = outputs.unimodal_predictions
  assert each is not None
  return -evidence.score(spec, each, label_of_each(each, label)).mean(0).sum()


def reconstruction_loss(outputs: Outputs, truth: jax.Array) -> jax.Array:
  """Mean squared distance of the reconstructions from the latents `truth` [B, M, D]."""
  assert outputs.reconstructions is not None
  return jnp.square(outputs.reconstructions - truth).mean()
