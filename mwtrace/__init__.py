"""The memory-leak watchdog for Linux hosts that run Python and native services."""

__version__ = "0.1.0"
