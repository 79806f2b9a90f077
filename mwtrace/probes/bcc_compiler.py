"""BPF text in, instructions out: a program of its own, run by the distribution's Python.

A compiler takes 130 MB, so it lives no longer than one text. It is run as a file, with the folder
of the package bcc as its argument, and knows nothing of mwtrace. Standard input is JSON,
``{"text": ..., "flags": [...]}``; standard output is JSON, ``{function: [instruction, ...]}`` with
every instruction as a number of 64 bits; what the compiler says goes to standard error.

It needs no privilege: nothing is loaded here.
"""

from __future__ import annotations

import json
import os
import struct
import sys


def main() -> int:
    sys.path.insert(0, sys.argv[1])
    # The compiler's library may print anything anywhere; the answer has a way of its own.
    answer = os.dup(1)
    os.dup2(2, 1)
    request = json.load(sys.stdin)

    from bcc import BPF
    from bcc.libbcc import lib

    try:
        module = BPF(text=request["text"], cflags=request["flags"])
    except Exception as error:  # bcc raises nothing more special
        print(error, file=sys.stderr)
        return 1
    functions = {}
    for index in range(lib.bpf_num_functions(module.module)):
        name = lib.bpf_function_name(module.module, index)
        code = module.dump_func(name)
        functions[name.decode()] = struct.unpack(f"={len(code) // 8}Q", code)
    with os.fdopen(answer, "w") as out:
        json.dump(functions, out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
