"""Faults in DREAM, the baselines and what they share."""

from faults.code.mutation import faults

_SWITCHES = 'test_models.py::test_one_modality_alone_has_no_agreement_to_show'
_POSTERIOR = 'test_models.py::test_posterior_over_coalitions_is_one_and_presence_its_margin'
_BEND = 'test_models.py::test_task_loss_cannot_bend_presence_or_shares'
_COUNTED = 'test_models.py::test_evidence_of_a_reconstruction_is_not_counted_again'
_ABSENT = 'test_models.py::test_absent_modality_contributes_nothing'
_BEYOND = 'test_models.py::test_values_beyond_the_length_do_not_matter[dream-tcn]'
_READS = 'test_hidden_mask.py::test_training_outputs_and_task_losses_do_not_read_the_mask_or_the_clean_inputs[dream]'

LIST = (
  *faults(
    'models/dream/recognition.py',
    ('agreement has the wrong sign', _SWITCHES, '- alone @ coalitions.T', '+ alone @ coalitions.T'),
    (
      'recognition bends the evidence',
      'test_dream_objective.py::test_each_of_these_terms_teaches_its_own_part',
      'stop_gradient(eta) * jnp.exp',
      'eta * jnp.exp',
    ),
    (
      'presence is of the absent',
      _POSTERIOR,
      'jnp.exp(log_posterior) @ coalitions',
      'jnp.exp(log_posterior) @ (1.0 - coalitions)',
    ),
    ('detector reads padding', _BEYOND, 'windows(x * inside[..., None].astype(x.dtype))', 'windows(x)'),
    (
      'odds of a slot have the wrong sign',
      'test_dream_parts.py',
      'jax.nn.log_sigmoid(-rho) - natural)',
      'jax.nn.log_sigmoid(-rho) + natural)',
    ),
  ),
  *faults(
    'models/dream/contribution.py',
    (
      'leaving out is worth minus itself',
      'test_coalitions.py::test_credit_is_as_defined',
      'values[:, -1:] - values[:, others]',
      'values[:, others] - values[:, -1:]',
    ),
    (
      'the empty coalition knows all',
      'test_coalitions.py::test_expected_credit_is_that_of_every_label_by_its_probability',
      'evidence.predict(spec, prior, jnp.zeros_like(eta[:, 0]))',
      'evidence.predict(spec, prior, eta.sum(1))',
    ),
  ),
  *faults(
    'models/dream/dream.py',
    (
      'empty slots have a presence',
      'test_dream_parts.py::test_presence_of_a_slot_that_is_plainly_empty_is_zero',
      'jnp.where(empty, 0.0, reported)',
      'jnp.where(empty, reported, reported)',
    ),
    ('task loss bends the credit', _BEND, 'credit = stop_gradient(credit)', 'credit = credit'),
    ('task loss bends the presence', _BEND, 'trusted = stop_gradient(presence)', 'trusted = presence'),
    ('task loss bends the confidence', _BEND, 'gates * stop_gradient(confidence)', 'gates * confidence'),
    ('standing forgets the presence', _ABSENT, '(m * shares) ** s.sharpness * trusted', '(m * shares) ** s.sharpness'),
    (
      'contributions are shares of one',
      'test_models.py::test_a_contribution_is_what_a_modality_is_worth_where_it_is_there',
      'contributions = m * merit * trusted',
      'contributions = merit * trusted',
    ),
    (
      'gate opens for what is strong',
      'test_models.py::test_low_contribution_opens_the_gate',
      '(s.gate_threshold - standing)',
      '(standing - s.gate_threshold)',
    ),
    (
      'gate is read the wrong way round',
      _COUNTED,
      '(1.0 - gates)[..., None] * z + gates[..., None] * reconstructions',
      'gates[..., None] * z + (1.0 - gates)[..., None] * reconstructions',
    ),
    (
      'reconstructions count as evidence',
      _COUNTED,
      'evidence_mask = (1.0 - gates) * standing',
      'evidence_mask = standing',
    ),
  ),
  *faults(
    'models/dream/fusion.py',
  ),
  *faults(
    'models/dream/losses.py',
    (
      'removed slots teach the evidence',
      'test_dream_objective.py::test_evidence_learns_nothing_from_slots_that_the_trainer_removed',
      '(intact * likelihood).sum(0)',
      'likelihood.sum(0)',
    ),
    (
      'coalitions are drawn from the removed',
      'test_dream_objective.py::test_coalitions_are_drawn_uniformly_from_the_kept_slots',
      '(~coalitions[None] | kept[:, None, :])',
      '(coalitions[None] | kept[:, None, :])',
    ),
    (
      'reconstruction learns from intact slots',
      'test_dream_objective.py::test_terms_about_what_was_removed_are_as_defined',
      '(removed * error).sum()',
      '(intact * error).sum()',
    ),
    (
      'reconstruction moves its target',
      'test_dream_objective.py::test_each_of_these_terms_teaches_its_own_part',
      "stop_gradient(model.encode(batch['clean'], train=False))",
      "model.encode(batch['clean'], train=False)",
    ),
    (
      'reconstruction imitates the damaged',
      _READS,
      "model.encode(batch['clean'], train=False)",
      "model.encode(batch['inputs'], train=False)",
    ),
    (
      'confidence moves the reconstruction',
      'test_dream_objective.py::test_each_of_these_terms_teaches_its_own_part',
      'quality = stop_gradient(reconstruction_quality(out.reconstructions, target))',
      'quality = reconstruction_quality(out.reconstructions, target)',
    ),
    (
      'weights of the terms are forgotten',
      'test_dream_objective.py::test_terms_about_what_was_removed_are_as_defined',
      'getattr(weights, name) * term',
      'term',
    ),
    (
      'recognition names every coalition',
      'test_dream_objective.py::test_terms_about_what_was_removed_are_as_defined',
      '(kept[:, None, :] == coalitions[None]).all(-1)',
      '(kept[:, None, :] == coalitions[None]).any(-1)',
    ),
  ),
  *faults(
    'models/dream/reconstruction.py',
    (
      'a latent is reconstructed from itself',
      'test_dream_parts.py',
      'jnp.where(jnp.eye(m, dtype=bool)[None], -jnp.inf, log_alpha)',
      'log_alpha',
    ),
    (
      'quality grows with the error',
      'test_dream_objective.py::test_terms_about_what_was_removed_are_as_defined',
      'jnp.exp(-jnp.square(reconstruction - target)',
      'jnp.exp(jnp.square(reconstruction - target)',
    ),
  ),
  *faults(
    'models/dream/typicality.py',
    (
      'values have no peak',
      'test_typicality.py::test_few_samples_are_enough_where_most_values_lie_near_their_median',
      'return logs - 0.5 *',
      'return 0.0 * logs - 0.0 *',
    ),
    (
      'the smaller energy counts',
      'test_typicality.py::test_training_samples_look_no_more_typical_than_new_ones',
      '.mean(-1).max(-1)',
      '.mean(-1).min(-1)',
    ),
  ),
  *faults(
    'models/evidence.py',
    (
      'log partition forgets the prior',
      'test_evidence.py::test_log_partition_is_the_sum_over_the_target',
      ' - jax.nn.logsumexp(prior, axis=-1)',
      '',
    ),
    (
      'huber distance bends late',
      'test_evidence.py::test_score_is_the_log_likelihood_or_minus_the_huber_distance',
      'error < 0.5',
      'error < 1.0',
    ),
    (
      'variance forgets the spread of means',
      'test_coalitions.py::test_variance_of_a_mixture_is_that_of_its_samples',
      ' + jnp.square(prediction - mean))).sum(-2)',
      ')).sum(-2)',
    ),
  ),
  *faults(
    'models/coalitions.py',
    (
      'shapley weights count the player twice',
      'test_coalitions.py::test_shapley_values_are_the_mean_over_orders_of_arrival',
      'math.factorial(s - 1) * math.factorial(m - s)',
      'math.factorial(s) * math.factorial(m - s)',
    ),
    (
      'shapley adds what is without the player',
      'test_coalitions.py::test_shapley_values_are_the_mean_over_orders_of_arrival',
      '-weight_out[:, None]',
      'weight_out[:, None]',
    ),
  ),
  *faults(
    'models/encoders.py',
    ('time mask is one frame too long', _BEYOND, '[None, :] < length[:, None]', '[None, :] <= length[:, None]'),
    ('masked mean divides by all frames', 'test_tokens.py', 'jnp.maximum(weight.sum(-2), 1.0)', 'float(x.shape[-2])'),
    (
      'maximum is taken over padding too',
      'test_tokens.py::test_a_sequence_is_the_same_however_far_it_is_padded',
      'jnp.max(jnp.where(mask[..., None], x, -1e9), axis=1)',
      'jnp.max(x, axis=1)',
    ),
  ),
  *faults(
    'models/layers.py',
    (
      'dropout does not rescale',
      'test_tokens.py::test_dropout_keeps_the_mean',
      'x / keep.astype(x.dtype)',
      'x',
    ),
    (
      'who may attend to nothing attends to all',
      'test_tokens.py::test_who_may_attend_to_nothing_hears_nothing',
      'return jnp.where(mask, weight, 0.0)',
      'return weight',
    ),
  ),
  *faults(
    'models/objective.py',
    (
      'unimodal losses are averaged',
      'test_balance_baselines.py::test_each_encoder_takes_the_step_between_its_own_two_gradients',
      '.mean(0).sum()',
      '.mean()',
    ),
  ),
  *faults(
    'models/baselines/concat.py',
    (
      'the oracle is not listened to',
      'test_hidden_mask.py::test_outputs_do_not_depend_on_removed_values_or_on_the_mask[oracle+dropout]',
      'z * inputs[ORACLE_MASK][..., None]',
      'z',
    ),
  ),
  *faults(
    'models/baselines/late.py',
    (
      'late fusion sums',
      'test_models.py::test_late_fusion_is_the_mean_of_the_heads',
      'jnp.mean(each, axis=1)',
      'jnp.sum(each, axis=1)',
    ),
  ),
  *faults(
    'models/baselines/lmf.py',
    (
      'factors lack the one',
      'test_mmsa_fusion.py::test_lmf',
      'jnp.ones((b, m, 1), z.dtype)',
      'jnp.zeros((b, m, 1), z.dtype)',
    ),
  ),
  *faults(
    'models/baselines/tfn.py',
    (
      'outer product is transposed',
      'test_mmsa_fusion.py::test_tfn',
      "'bi,bj->bij'",
      "'bi,bj->bji'",
    ),
  ),
  *faults(
    'models/baselines/mult.py',
    (
      'a token does not hear itself',
      'test_mmsa_fusion.py::test_mult',
      '<= time[None, None, :, None] + lead',
      '< time[None, None, :, None] + lead',
    ),
  ),
  *faults(
    'models/baselines/lnln.py',
    (
      'the adversary is not reversed',
      'test_proxy_baselines.py::test_the_gradient_of_the_adversary_is_reversed_on_its_way_to_the_proxy_and_not_to_the_critic',
      '2.0 * stop_gradient(proxy) - proxy',
      'proxy',
    ),
  ),
  *faults(
    'models/baselines/p_rmf.py',
    (
      'divergence has a wrong sign',
      'test_proxy_baselines.py::test_the_divergence_is_that_of_two_densities',
      '- 1.0 - log_variance)',
      '- 1.0 + log_variance)',
    ),
  ),
  *faults(
    'models/baselines/hme.py',
    (
      'certainty is not bounded',
      'test_proxy_baselines.py::test_hme_trusts_nobody_without_bounds',
      'self.low, self.high)',
      'self.low, None)',
    ),
  ),
  *faults(
    'models/baselines/mmin.py',
    (
      'whole samples are imagined back',
      'test_missing_baselines.py::test_mmin_imagines_forth_and_back',
      '(1.0 - removed) * removed.max(-1, keepdims=True)',
      '1.0 - removed',
    ),
  ),
  *faults(
    'models/baselines/momke.py',
    (
      'experts learn from damaged slots',
      'test_missing_baselines.py::test_momke_teaches_experts_their_own_modality_where_it_is_intact',
      "(batch['kept'] >= 1.0)",
      "(batch['kept'] >= 0.0)",
    ),
  ),
  *faults(
    'models/baselines/tfr_net.py',
    (
      'padding is to be rebuilt',
      'test_missing_baselines.py::test_tfr_net_rebuilds_the_tokens_of_removed_slots',
      "truth.mask & (batch['kept'] < 1.0)[..., None]",
      "jnp.ones_like(truth.mask) & (batch['kept'] < 1.0)[..., None]",
    ),
  ),
  *faults(
    'models/baselines/ogm_ge.py',
    (
      'who is behind is slowed',
      'test_balance_baselines.py::test_a_modality_is_slowed_by_how_far_it_is_ahead_of_the_others',
      'jnp.where(rho > 1.0',
      'jnp.where(rho < 1.0',
    ),
  ),
  *faults(
    'models/baselines/mmpareto.py',
    (
      'the shortest vector is of the other gradient',
      'test_balance_baselines.py::test_gradients_in_conflict_give_the_shortest_vector_between_them_at_the_length_of_their_sum',
      '(uu - gu) /',
      '(gg - gu) /',
    ),
  ),
  *faults(
    'models/baselines/modality_valuation.py',
    (
      'the strong are seen again',
      'test_balance_baselines.py::test_a_weak_modality_is_trained_alone_as_often_as_it_is_weak_and_all_samples_weigh_the_same',
      '1.0 - value, 0.0',
      'value - 1.0, 0.0',
    ),
  ),
)
