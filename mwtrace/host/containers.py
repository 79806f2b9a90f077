"""What the runtimes call a container of which the cgroup path tells only the id.

Asks no runtime: it reads the names that the kubelet writes into links to log files, and the state
file that Docker keeps of each container. Both belong to root, so what they say may be believed.
"""

from __future__ import annotations

import json
import os
import re

from mwtrace.host.procfs import Host

LOG_LINKS_DIRECTORY = "/var/log/containers"
DOCKER_DIRECTORY = "/var/lib/docker/containers"
_LINKS_MAX = 16_384
_DOCKER_STATE_BYTES_MAX = 1024 * 1024

# <pod>_<namespace>_<container>-<id>.log; none of the three names can hold an underscore.
_LOG_LINK = re.compile(r"([^_/]+)_([^_/]+)_([^_/]+)-([0-9a-f]{64})\.log")
# The letters of the suffixes that Kubernetes makes up (apimachinery, util/rand), which come anew
# with every pod: a Deployment's or CronJob's two, or a DaemonSet's one.
_MADE_UP = "[bcdfghjklmnpqrstvwxz2456789]"
_POD_SUFFIX = re.compile(rf"(?:-(?:{_MADE_UP}{{8,10}}|\d{{8,10}}))?-{_MADE_UP}{{5}}$")
_SWARM_SUFFIX = re.compile(r"\.\d+\.[a-z0-9]{25}$")


class ContainerNames:
    """Names by container id, kept as long as the directory that they came from is unchanged."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._links: dict[str, str] = {}
        self._links_changed_ns = -1
        self.links_omitted_total = 0

    def name(self, container_id: str) -> str | None:
        """Return ``namespace/workload/container`` or Docker's name, None if neither is known.

        Raises OSError for want of descriptors.
        """
        self._refresh_links()
        return self._links.get(container_id) or self._docker_name(container_id)

    def _refresh_links(self) -> None:
        try:
            changed_ns = os.stat(self._host.path(LOG_LINKS_DIRECTORY)).st_mtime_ns
        except OSError:
            self._links = {}
            return
        if changed_ns == self._links_changed_ns:
            return
        entries = self._host.list_directory(LOG_LINKS_DIRECTORY)
        self.links_omitted_total += max(len(entries) - _LINKS_MAX, 0)
        links = {}
        for entry in entries[:_LINKS_MAX]:
            match = _LOG_LINK.fullmatch(entry)
            if match:
                links[match[4]] = f"{match[2]}/{workload(match[1])}/{match[3]}"
        self._links, self._links_changed_ns = links, changed_ns

    def _docker_name(self, container_id: str) -> str | None:
        path = f"{DOCKER_DIRECTORY}/{container_id}/config.v2.json"
        raw = self._host.read_if_there(path, _DOCKER_STATE_BYTES_MAX)
        try:
            name = json.loads(raw or b"{}").get("Name")
        except (ValueError, AttributeError, RecursionError):
            return None  # cut off at our bound, or a format of a Docker to come
        if not isinstance(name, str):
            return None
        return _SWARM_SUFFIX.sub("", name.lstrip("/")) or None


def workload(pod: str) -> str:
    """Cut off what a pod's name has anew at each start: ``api-6d4cf56db6-x2x9z`` is ``api``.

    A StatefulSet's number stays, because it outlives the pod.
    """
    return _POD_SUFFIX.sub("", pod) or pod
