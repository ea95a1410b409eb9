"""What a run leaves on the disk: sealed files, checkpoints, logs, and the lock that keeps others out."""
