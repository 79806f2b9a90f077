"""Incidents: when one opens, what is known of it, when it is over, and its record on disk.

Law of this room: it tells nobody. Who is told, and how, is ``tell``'s.
"""
