"""``python -m mwtrace``."""

from mwtrace.cli import main

main()
