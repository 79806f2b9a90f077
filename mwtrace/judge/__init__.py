"""Samples in, verdicts out.

Law of this room: it never reads a clock, a file or a process; time arrives inside the samples. So
a verdict can be replayed from a recording, and is.
"""
