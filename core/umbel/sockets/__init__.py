"""Streams and listeners over sockets, for transports that have some."""
