"""What the operator wants otherwise for some services: by name, first match first.

Pure: patterns in, settings out. Who writes the patterns is no business of this file.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mwtrace.judge.trend import Thresholds
from mwtrace.model import Service

_REMEMBERED_MAX = 8_192  # services; beyond, patterns are matched anew


@dataclass(frozen=True)
class Rule:
    """What holds for services whose name matches; what is not said is as for all."""

    pattern: str
    is_ignored: bool = False
    is_watched_only: bool = False  # neither read nor sampled nor probed
    thresholds: tuple[tuple[str, float], ...] = ()  # fields of Thresholds


EVERYBODY = Rule("*")


@dataclass
class Rules:
    """Looked up for each service at each tick, so answers are remembered."""

    rules: Sequence[Rule] = ()
    _found: dict[str, Rule] = field(default_factory=dict, repr=False, compare=False)

    def of(self, service: Service) -> Rule:
        """Return the first rule that matches, or the one for everybody."""
        if not self.rules:
            return EVERYBODY
        rule = self._found.get(service.name)
        if rule is None:
            if len(self._found) >= _REMEMBERED_MAX:
                self._found.clear()
            rule = self._found[service.name] = self._match(service.name)
        return rule

    def _match(self, name: str) -> Rule:
        for rule in self.rules:
            # A unit may be called without its suffix, as on the command line.
            for pattern in (rule.pattern, f"{rule.pattern}.service"):
                if name == pattern or fnmatch.fnmatchcase(name, pattern):
                    return rule
        return EVERYBODY


def thresholds_under(rule: Rule, thresholds: Thresholds) -> Thresholds:
    """Return the thresholds as the rule changes them."""
    if not rule.thresholds:
        return thresholds
    kinds = {name: type(getattr(thresholds, name)) for name, _ in rule.thresholds}
    return replace(thresholds, **{name: kinds[name](value) for name, value in rule.thresholds})
