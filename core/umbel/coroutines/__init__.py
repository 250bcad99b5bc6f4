"""What coroutines live in, run, wait for, and hand each other."""
