"""Faults in metrics, intervals, comparisons, calibration and prediction."""

from faults.code.mutation import faults

LIST = (
  *faults(
    'evaluation/metrics.py',
    (
      'correlation is not centred',
      'test_metrics.py::test_sentiment_regression_equals_the_reference',
      'a, b = a - a.mean(), b - b.mean()',
      'a, b = a, b',
    ),
    (
      'f1 is weighted by the predictions',
      'test_metrics.py::test_f1_is_weighted_by_the_labels_and_not_by_the_predictions',
      '(f1 * support).sum() / support.sum(),',
      '(f1 * np.bincount(decided, minlength=num_classes)).sum() / support.sum(),',
    ),
    (
      'zero is negative',
      'test_metrics.py::test_sentiment_regression_equals_the_reference',
      'value >= 0, label >= 0',
      'value > 0, label >= 0',
    ),
    (
      'ranks of ties are too low',
      'test_metrics.py::test_rank_measures_equal_references_with_ties',
      '(counts - 1) / 2',
      '(counts - 1)',
    ),
    (
      'binary logits are read as probabilities',
      'test_metrics.py::test_binary_equals_scikit_learn',
      '(prediction[:, 0] > 0)',
      '(prediction[:, 0] > 0.5)',
    ),
    (
      'precision is over all samples',
      'test_metrics.py::test_multilabel_equals_scikit_learn',
      'hits[ends] / (ends + 1)',
      'hits[ends] / len(label)',
    ),
    (
      'area is not divided by the span',
      'test_metrics.py::test_auilc_is_the_area_over_the_span',
      '/ (rates[-1] - rates[0]))',
      '/ 1.0)',
    ),
    (
      'one bad number is overlooked',
      'test_metrics.py::test_a_diverged_prediction_makes_every_metric_nan',
      'if np.isnan(prediction).any():',
      'if np.isnan(prediction).all():',
    ),
  ),
  *faults(
    'evaluation/intervals.py',
    ('deviation is of the population', 'test_statistics.py::test_summary_is_the_student_interval', 'ddof=1', 'ddof=0'),
    (
      'one degree of freedom too many',
      'test_statistics.py::test_summary_is_the_student_interval',
      'special.stdtrit(num_seeds - 1',
      'special.stdtrit(num_seeds',
    ),
    (
      'few seeds are not stretched',
      'test_statistics.py::test_two_way_bootstrap_covers_seeds_and_samples',
      'draws += stretch * (seeds @',
      'draws += (seeds @',
    ),
    (
      'p values are one-sided',
      'test_statistics.py::test_zero_at_an_end_of_the_interval_has_a_p_value_of_a_twentieth',
      '2 * (tail + 1)',
      '(tail + 1)',
    ),
    (
      'samples are not centred',
      'test_statistics.py::test_zero_at_an_end_of_the_interval_has_a_p_value_of_a_twentieth',
      'samples @ (gap.mean(axis=0) - difference)',
      'samples @ gap.mean(axis=0)',
    ),
    ('holm is bonferroni', 'test_statistics.py::test_holm_by_hand', 'np.arange(len(p), 0, -1)', 'len(p)'),
    (
      'holm steps up',
      'test_statistics.py::test_holm_by_hand',
      'np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))',
      'p[order] * np.arange(len(p), 0, -1)',
    ),
  ),
  *faults(
    'evaluation/comparisons.py',
    (
      'the difference has the wrong sign',
      'test_comparisons.py',
      'paired_comparison(scores, row.sample_scores[protocol])',
      'paired_comparison(row.sample_scores[protocol], scores)',
    ),
  ),
  *faults(
    'evaluation/calibration.py',
    (
      'too sure and too unsure cancel',
      'test_calibration.py',
      'np.abs(gap).sum() / len(sure)',
      'np.abs(gap.sum()) / len(sure)',
    ),
    (
      'a worse temperature is kept',
      'test_calibration.py',
      '<= loss(0.0) and error(found)',
      '<= loss(0.0) or error(found)',
    ),
  ),
  *faults(
    'evaluation/evaluate.py',
    (
      'empty slots count as kept',
      'test_native.py::test_what_is_missing_from_the_start_is_neither_kept_nor_removed',
      'kept = left & judged',
      'kept = left',
    ),
    (
      'empty slots are recognised or not',
      'test_native.py::test_what_is_missing_from_the_start_is_neither_kept_nor_removed',
      'return (kept < 0.5) | ~native',
      'return (kept < 0.5) | (kept >= 0.5)',
    ),
    (
      'confidence is fitted on test',
      'test_evaluate.py::test_confidence_is_fitted_on_all_draws_of_validation_and_measured_on_test',
      "params, inputs, 'validation', missing",
      "params, inputs, 'test', missing",
    ),
    (
      'every draw is the same',
      'test_evaluate.py::test_confidence_is_fitted_on_all_draws_of_validation_and_measured_on_test',
      'seed=seed + draw',
      'seed=seed',
    ),
    (
      'recognition is scored where nothing is missing',
      'test_evaluate.py::test_recognition_is_scored_over_all_slots_of_a_protocol',
      "condition.missing.kind == 'none' or condition.rate == 0",
      "condition.missing.kind == 'none'",
    ),
    (
      'the constant is that of the test labels',
      'test_evaluate.py::test_constant_prediction_is_the_majority_or_the_mean',
      "prepared.splits['train'].label",
      "prepared.splits['test'].label",
    ),
  ),
  *faults(
    'evaluation/predict.py',
    (
      'padding overwrites a sample',
      'test_evaluate.py::test_equal_inputs_are_predicted_once_and_nothing_else_changes',
      'real = weight > 0\n',
      'real = weight >= 0\n',
    ),
    (
      'predictions keep the mean of zero',
      'test_evaluate.py::test_regression_is_predicted_in_the_units_of_the_labels',
      'prediction * np.float32(self.std) + np.float32(self.mean)',
      'prediction * np.float32(self.std)',
    ),
  ),
  *faults(
    'evaluation/modality_values.py',
    (
      'worth is minus the likelihood',
      'test_valuation.py',
      'np.exp(np.asarray(evidence.score(',
      'np.exp(-np.asarray(evidence.score(',
    ),
  ),
)
