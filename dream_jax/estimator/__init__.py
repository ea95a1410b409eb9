"""The door for tables: scikit-learn's `fit` and `predict` for frames, dicts and lists, over the one engine.

table.py      columns by name, whatever holds them
modality.py   which columns are one modality, and of which kind
vectors.py, arrays.py, words.py   what turns cells into the numbers of a modality, fitted on training rows
reader.py     all modalities of a table together
targets.py    labels, and which rows are validation
fitting.py    training through the engine
ensemble.py   the mean of all seeds as one predictor
store.py      saved models
base.py       scikit-learn's base class, or one like it
estimator.py  what users call
"""
