"""From records on disk to batches of static shape, on the host, in numpy."""
