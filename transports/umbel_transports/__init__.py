"""The built-in transports, one file each, found by entry point like anyone's."""
