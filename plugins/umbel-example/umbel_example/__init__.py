"""A transport of your own: streams in the memory of one process."""
