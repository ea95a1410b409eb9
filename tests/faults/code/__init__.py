"""Mutations of the package: single faults that a person could write, and the tests that must turn red at each.

A mutation replaces one text of one file by another. `models`, `evaluation`, `data` and `training` hold the list;
`running` applies a mutation to a copy of the repository and runs its tests there; `benchmarks/mutants_of_code.py` is
the command. Spoiled *inputs* are another matter, see `faults.mutants`.
"""

from faults.code import data, evaluation, models, training
from faults.code.mutation import Mutation

ALL: tuple[Mutation, ...] = (*models.LIST, *evaluation.LIST, *data.LIST, *training.LIST)
