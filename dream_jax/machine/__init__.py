"""What this machine allows: paths, disks, memory, cores, caches, environment variables, exit codes."""

import os

# Read by TensorFlow when it is first imported, by whichever module comes first. It only feeds data, so oneDNN is
# of no use, and each of these would otherwise print lines at every start.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')
