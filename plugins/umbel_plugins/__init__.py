"""Observers (plugins of umbel that are no transports), loaded on request."""
