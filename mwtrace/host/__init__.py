"""What the machine and its processes say of themselves: /proc, /sys and cgroups, read only.

Law of this room: every file is found below a root that the caller names, every read is bounded,
and all text is hostile, since any user of the host can write it. It judges nothing, keeps no
history, loads no kernel program and never touches a process.
"""
