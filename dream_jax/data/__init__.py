"""Data: what a sample is in memory, what goes missing from it, and the order in which a model sees it."""

import os

# Read by TensorFlow when it is first imported, by whichever module here comes first. It only feeds data, so oneDNN is
# of no use, and each of these would otherwise print lines at every start.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')
