"""Plugins of umbel that are not transports: found by entry point, loaded on request."""
