"""Faults in the step, the loop, resuming, checkpoints and seals."""

from faults.code.mutation import faults

_GOES_ON = 'test_train.py::test_stopped_and_continued_equals_never_stopped'

LIST = (
  *faults(
    'training/step.py',
    (
      'the earlier of equals wins',
      'test_step.py::test_later_of_equal_readings_wins_and_nan_never',
      '(score >= selection.score)',
      '(score > selection.score)',
    ),
    (
      'minus infinity is a score',
      'test_step.py::test_minus_infinity_is_no_score_and_nothing_is_selected_of_a_run_that_diverged',
      ' & jnp.isfinite(score) &',
      ' &',
    ),
    (
      'who diverged is selected',
      'test_step.py::test_minus_infinity_is_no_score_and_nothing_is_selected_of_a_run_that_diverged',
      ' & (selection.step >= 0)',
      '',
    ),
    (
      'every step draws the same',
      'test_step.py::test_every_seed_and_step_draws_for_itself_and_terms_are_means_over_steps',
      'jax.random.fold_in(seed_key(seed, _STEP_STREAM), step)',
      'seed_key(seed, _STEP_STREAM)',
    ),
    (
      'the rate has no schedule',
      'test_step.py::test_a_step_is_that_of_adamw_after_clipping_with_warm_up_and_cosine_decay',
      'settings.learning_rate * shape(count)',
      'settings.learning_rate',
    ),
    (
      'clipping comes after adam',
      'test_step.py::test_a_step_is_that_of_adamw_after_clipping_with_warm_up_and_cosine_decay',
      'optax.clip_by_global_norm(settings.clip_norm),\n    optax.scale_by_adam(),',
      'optax.scale_by_adam(),\n    optax.clip_by_global_norm(settings.clip_norm),',
    ),
    (
      'the log shows the last step of a call',
      'test_step.py::test_every_seed_and_step_draws_for_itself_and_terms_are_means_over_steps',
      'lambda x: x.mean(0), terms',
      'lambda x: x[-1], terms',
    ),
  ),
  *faults(
    'training/train.py',
    (
      'few samples are passed as often as many',
      'test_train.py::test_few_samples_are_passed_more_often',
      'max(t.least_steps,',
      'max(1,',
    ),
    (
      'validation reads one draw again and again',
      'test_train.py::test_a_score_is_the_mean_over_draws_of_what_is_missing',
      'seed=self.recipe.seed + draw,',
      'seed=self.recipe.seed,',
    ),
    (
      'the test split selects',
      'test_train.py::test_selection_keeps_the_best_reading_of_each_seed',
      "trainer.score(state.average, 'validation')",
      "trainer.score(state.average, 'test')",
    ),
    (
      'what is scored is not what is kept',
      'test_train.py::test_selection_keeps_the_best_reading_of_each_seed',
      "trainer.score(state.average, 'validation')",
      "trainer.score(state.params, 'validation')",
    ),
    (
      'errors are maximised',
      'test_train.py::test_a_score_is_the_mean_over_draws_of_what_is_missing',
      '(total if higher else -total)',
      '(total)',
    ),
    ('data start anew after a stop', _GOES_ON, '      start_step=start_step,\n', '      start_step=0,\n'),
    (
      'the optimiser starts anew after a stop',
      _GOES_ON,
      'state = self.first_state() if found is None else found[1]',
      'state = self.first_state()\n      if found:\n        state = found[1].replace(opt_state=state.opt_state)',
    ),
    (
      'an epoch lacks its last samples',
      'test_train.py::test_what_is_left_of_an_epoch_counts',
      't.epochs * num_samples // t.batch_size',
      't.epochs * (num_samples // t.batch_size)',
    ),
  ),
  *faults(
    'training/divergence.py',
    (
      'one finite number of a run is enough',
      'test_divergence.py::test_what_is_not_finite_is_found_in_any_shape',
      'np.isfinite(x).all(axis=1)',
      'np.isfinite(x).any(axis=1)',
    ),
  ),
  *faults(
    'training/feed.py',
    (
      'the device reads labels in their units',
      'test_feed.py',
      "label=scale.standardise(self.prepared.splits['train'].label),",
      "label=self.prepared.splits['train'].label,",
    ),
  ),
  *faults(
    'parallel/rows.py',
    (
      'a device counts its own rows alone',
      'test_mapped.py::test_sums_counts_and_draws_are_those_of_the_whole_batch',
      'jnp.maximum(mean(count), 1.0 / num_devices())',
      'jnp.maximum(count, 1.0 / num_devices())',
    ),
    (
      'every device draws the same',
      'test_mapped.py::test_sums_counts_and_draws_are_those_of_the_whole_batch',
      'jax.lax.axis_index(AXIS) * shape[axis]',
      'jax.lax.axis_index(AXIS) * 0',
    ),
  ),
  *faults(
    'workdir/checkpoints.py',
    (
      'the first save is restored',
      'test_checkpoints.py::test_latest_state_comes_back_to_the_bit_and_old_ones_go',
      'step = max(self._steps(kind)[0], default=None)',
      'step = min(self._steps(kind)[0], default=None)',
    ),
    (
      'a choice from a lost future stays',
      'test_checkpoints.py::test_best_replaces_an_earlier_choice_and_one_from_a_lost_future',
      'if old >= step:',
      'if old > step:',
    ),
    (
      'a file that is gone is not missed',
      'test_checkpoints.py::test_a_file_that_orbax_does_without_is_missed_too',
      'if found.get(name) != digest:',
      'if found.get(name, digest) != digest:',
    ),
    (
      'a save without a seal is finished',
      'test_checkpoints.py::test_a_save_without_a_seal_is_not_finished',
      'if (folder / str(step) / _SEAL).exists()',
      'if (folder / str(step)).exists()',
    ),
  ),
  *faults(
    'workdir/sealed.py',
    (
      'another run passes',
      'test_sealed.py::test_another_run_and_another_place_are_told',
      'expected is not None and found != expected',
      'expected is None and found != expected',
    ),
    (
      'a seal is not compared',
      'test_sealed.py::test_every_changed_character_is_noticed_or_changes_nothing',
      "bool(rest) and seal['sha256'] == _digest(content, rest)",
      'bool(rest)',
    ),
    (
      'another place passes',
      'test_sealed.py::test_another_run_and_another_place_are_told',
      "if rest['name'] != expected:",
      "if name and rest['name'] != expected:",
    ),
  ),
)
