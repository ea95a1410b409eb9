"""What a job costs on a chip, before it is started."""
