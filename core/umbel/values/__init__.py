"""Values: no I/O, no scheduler."""
