"""Ask a process that has no hook for a snapshot: the hook is brought into it by injection.

Only where an operator says so. The hook then stays in the process, asleep and without a signal, so
that the next time costs less and leaves no second mailbox. It must not know how injection works.
"""

from __future__ import annotations

from pathlib import Path

from mwtrace.errors import ProcessGone
from mwtrace.host.procfs import Host
from mwtrace.model import ProcessId
from mwtrace.snapshot import trigger
from mwtrace.snapshot.inject import NoAnswer, StillRunning, run_script
from mwtrace.snapshot.outcomes import NotTaken, Outcome
from mwtrace.snapshot.points import Refused
from mwtrace.snapshot.trigger import Answer

# Frames of ours are told by a constant that only our lines have.
_SOURCE = """\
import sys, types
hook = sys.modules.get('mwtrace_hook') or sys.modules.get('_mwtrace_hook')
if not hasattr(hook, 'take'):
    hook = types.ModuleType('_mwtrace_hook')
    sys.modules['_mwtrace_hook'] = hook
    try:
        exec(compile({text!r}, 'mwtrace_hook.py', 'exec'), hook.__dict__)
    except BaseException:
        del sys.modules['_mwtrace_hook']
        raise
frame = sys._getframe()
while frame is not None and (
        frame.f_globals.get('__name__') == '_mwtrace' or '_mwtrace' in frame.f_code.co_consts):
    frame = frame.f_back
hook.take(frame)
"""


def ask_uninvited(
    host: Host, process: ProcessId, deadline_s: float, trusts_filter: bool = False
) -> Answer:
    """Have a process's hook, or one that is injected, write a snapshot; raises NotTaken.

    trusts_filter: see ``inject.run_script``.
    """
    try:
        return trigger.ask(host, process, deadline_s)
    except NotTaken as error:
        if error.outcome is not Outcome.NO_HOOK:
            raise
    before = trigger.read_mailbox(process)
    text = (Path(__file__).parent / "hook.py").read_text(encoding="utf-8")
    try:
        run_script(host, process, _SOURCE.format(text=text), deadline_s, trusts_filter)
    except ProcessGone as error:
        raise NotTaken(Outcome.GONE, f"{error}") from error
    except Refused as error:
        raise NotTaken(Outcome.REFUSED, f"{error}", error.remedy) from error
    except (NoAnswer, StillRunning) as error:
        raise NotTaken(Outcome.NO_ANSWER, f"{error}", error.remedy) from error
    return trigger.await_child(host, process, before.asked if before else 0, deadline_s)
