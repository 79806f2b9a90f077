"""Incident news posted to a URL: as JSON for programs, or as text for Slack and its like."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Optional

from mwtrace.model import IncidentNews
from mwtrace.tell.incident import news_json, slack_text
from mwtrace.tell.posting import Peer
from mwtrace.tell.sinks import Sink


class Webhook(Sink):
    renew_s: Optional[float] = None

    def __init__(self, peer: Peer, host: str) -> None:
        self.name = f"webhook {peer.address.words}"
        self._peer = peer
        self._host = host

    def deliver(self, news: Sequence[IncidentNews]) -> None:
        for one in news:
            self._peer.post(news_json(one, self._host).encode("ascii"))


class SlackWebhook(Sink):
    renew_s: Optional[float] = None

    def __init__(self, peer: Peer, host: str) -> None:
        self.name = f"slack webhook {peer.address.words}"
        self._peer = peer
        self._host = host

    def deliver(self, news: Sequence[IncidentNews]) -> None:
        for one in news:
            self._peer.post(json.dumps({"text": slack_text(one, self._host)}).encode("ascii"))
