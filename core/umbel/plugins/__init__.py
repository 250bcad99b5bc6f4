"""Plugins: how transports and observers are found, checked, loaded and run.

Observers are plugins that are not transports; these three functions are for programs
that load them. A plugin itself imports `umbel.spi`.
"""

from umbel.plugins.observers import add_plugin, load_plugins, remove_plugin

__all__ = ["add_plugin", "load_plugins", "remove_plugin"]
