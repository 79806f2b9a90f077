"""Which engine: the one that was asked for, or the one that this host calls for.

Knows the engines and what each needs of the host; loads nothing.
"""

from __future__ import annotations

from mwtrace.errors import ConfigError, EngineError
from mwtrace.host import bcc
from mwtrace.host.kernel import has_btf
from mwtrace.host.procfs import Host
from mwtrace.probes.engine import Engine
from mwtrace.probes.engine_bcc import BccEngine
from mwtrace.probes.engine_libbpf import LibbpfEngine

AUTO = "auto"
NAMES = (AUTO, LibbpfEngine.name, BccEngine.name)


def choose(name: str, host: Host) -> Engine:
    """Return the engine of that name; AUTO is libbpf, or where there is no BTF bcc, if it is here.

    Raises EngineError if bcc was asked for and is not installed. Where neither can work, libbpf
    is returned, and says why when it loads.
    """
    if name not in NAMES:
        raise ConfigError(f"there is no engine {name}", f"Choose one of: {', '.join(NAMES)}.")
    if name == LibbpfEngine.name:
        return LibbpfEngine()
    found = bcc.find_bcc(host)
    if name == BccEngine.name:
        if found is None:
            raise EngineError("cannot use bcc: it is not installed", bcc.REMEDY)
        return BccEngine(found)
    if found is not None and not has_btf(host):
        return BccEngine(found)
    return LibbpfEngine()
