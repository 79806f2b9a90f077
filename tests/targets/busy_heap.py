"""A heap of argv[1] objects under steady work; the file argv[2], of 8 bytes, counts rounds."""

import mmap
import struct
import sys

KEEP = [(i, str(i), {"k": i}) for i in range(int(sys.argv[1]) // 5)]
with open(sys.argv[2], "r+b") as file:
    counter = mmap.mmap(file.fileno(), 8)
sys.stdout.write("ready\n")
sys.stdout.flush()
rounds = 0
while True:
    for i in range(2000):
        KEEP[i] = (i, str(i), {"k": i})
    rounds += 1
    struct.pack_into("<Q", counter, 0, rounds)
