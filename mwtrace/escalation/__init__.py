"""From a verdict to its kind: suspects are read twice, and what grew between is a finding.

Law of this room: it never delays a tick. Readings are made by one thread, one at a time, within an
allowance per host and hour; what is refused is counted.
"""
