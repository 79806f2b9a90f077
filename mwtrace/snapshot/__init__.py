"""Snapshots: what a process writes about its own objects when it is asked to, and who asks.

Law of this room: a process is signalled only after its hook has shown that it waits for that
signal; whatever goes wrong ends as a recorded outcome, never as harm to the process or the host.
"""
