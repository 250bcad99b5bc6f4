"""Streams and listeners by handle: libdill's rules, above any transport."""
