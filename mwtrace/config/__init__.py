"""The configuration file: what the command line can say, and what it says of single services.

Law of this room: every fault of a file is found in one reading, each with its line and what to do
about it. It must not know what an option means: the command line's own options check their values.
"""
