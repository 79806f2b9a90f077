"""The manifests: by schema as far as they use it, and by assertions on what they ask for."""

from __future__ import annotations

import shlex
from pathlib import Path

import jsonschema
import pytest
import yaml
from click.testing import CliRunner

from mwtrace import __version__
from mwtrace.cli import cli

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "kubernetes"
PAGE = (ROOT / "docs" / "kubernetes.md").read_text()

_NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"}
_QUANTITY = {"type": "string", "pattern": r"^\d+(m|Mi|Gi)?$"}
_QUANTITIES = {
    "type": "object",
    "properties": {"cpu": _QUANTITY, "memory": _QUANTITY},
    "additionalProperties": False,
}


def closed(properties: dict, *required: str) -> dict:
    """An object with these fields and no other: a word that is misspelt is ignored by no schema."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


_METADATA = closed(
    {"name": _NAME, "namespace": _NAME, "labels": {"type": "object"}, "annotations": {}}
)
_PROFILE = closed({"type": {"enum": ["Unconfined", "RuntimeDefault", "Localhost"]}}, "type")
_SECURITY = closed(
    {
        "runAsUser": {"type": "integer"},
        "privileged": {"type": "boolean"},
        "allowPrivilegeEscalation": {"type": "boolean"},
        "readOnlyRootFilesystem": {"type": "boolean"},
        "capabilities": closed(
            {
                "drop": {"type": "array", "items": {"type": "string"}},
                "add": {"type": "array", "items": {"type": "string", "pattern": "^[A-Z_]+$"}},
            }
        ),
        "seccompProfile": _PROFILE,
        "appArmorProfile": _PROFILE,
        "seLinuxOptions": closed({"type": {"type": "string"}}),
    }
)
_CONTAINER = closed(
    {
        "name": _NAME,
        "image": {"type": "string"},
        "imagePullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
        "args": {"type": "array", "items": {"type": "string"}},
        "securityContext": _SECURITY,
        "resources": closed({"requests": _QUANTITIES, "limits": _QUANTITIES}),
        "volumeMounts": {
            "type": "array",
            "items": closed(
                {
                    "name": _NAME,
                    "mountPath": {"type": "string", "pattern": "^/"},
                    "readOnly": {"type": "boolean"},
                },
                "name",
                "mountPath",
            ),
        },
    },
    "name",
    "image",
)
_VOLUME = closed(
    {
        "name": _NAME,
        "hostPath": closed(
            {
                "path": {"type": "string", "pattern": "^/"},
                "type": {"enum": ["Directory", "DirectoryOrCreate", "File"]},
            },
            "path",
        ),
        "emptyDir": closed({"sizeLimit": _QUANTITY, "medium": {"enum": ["", "Memory"]}}),
    },
    "name",
)
_POD = closed(
    {
        "serviceAccountName": _NAME,
        "automountServiceAccountToken": {"type": "boolean"},
        "hostPID": {"type": "boolean"},
        "shareProcessNamespace": {"type": "boolean"},
        "tolerations": {"type": "array"},
        "priorityClassName": _NAME,
        "terminationGracePeriodSeconds": {"type": "integer"},
        "containers": {"type": "array", "items": _CONTAINER, "minItems": 1},
        "volumes": {"type": "array", "items": _VOLUME},
    },
    "containers",
)
_HEAD = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": _METADATA}
SCHEMAS = {
    ("v1", "Namespace"): closed(_HEAD),
    ("v1", "ServiceAccount"): closed(
        {**_HEAD, "automountServiceAccountToken": {"type": "boolean"}}
    ),
    ("v1", "Pod"): closed({**_HEAD, "spec": _POD}, "spec"),
    ("apps/v1", "DaemonSet"): closed(
        {
            **_HEAD,
            "spec": closed(
                {
                    "selector": closed({"matchLabels": {"type": "object"}}, "matchLabels"),
                    "updateStrategy": {"type": "object"},
                    "template": closed({"metadata": _METADATA, "spec": _POD}, "spec"),
                },
                "selector",
                "template",
            ),
        },
        "spec",
    ),
}


def documents(name: str) -> list[dict]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def pod(name: str) -> dict:
    last = documents(name)[-1]
    return last["spec"]["template"]["spec"] if last["kind"] == "DaemonSet" else last["spec"]


def ours(name: str) -> dict:
    return next(c for c in pod(name)["containers"] if c["name"] == "mwtrace")


EVERY = pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.yaml")))


@EVERY
def test_each_document_keeps_to_its_schema(name):
    for document in documents(name):
        jsonschema.validate(document, SCHEMAS[document["apiVersion"], document["kind"]])


@EVERY
def test_no_more_is_asked_for_than_the_page_says(name):
    security = ours(name)["securityContext"]
    assert security["privileged"] is False
    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"]["drop"] == ["ALL"]
    assert set(security["capabilities"]["add"]) <= {
        "BPF",
        "PERFMON",
        "SYS_PTRACE",
        "DAC_READ_SEARCH",
    }
    for capability in security["capabilities"]["add"]:
        assert capability in PAGE
    assert pod(name)["automountServiceAccountToken"] is False
    assert "hostNetwork" not in pod(name)
    assert "hostIPC" not in pod(name)


@EVERY
def test_nothing_of_the_node_can_be_written(name):
    mounts = {mount["name"]: mount for mount in ours(name)["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod(name)["volumes"]}
    assert set(mounts) == set(volumes)
    for title, volume in volumes.items():
        if "hostPath" in volume:
            assert mounts[title]["readOnly"] is True, title
            assert volume["hostPath"]["path"] not in ("/", "/proc", "/etc", "/var", "/run"), title
            assert mounts[title]["mountPath"] == volume["hostPath"]["path"]
            assert volume["hostPath"]["path"] in PAGE
        else:
            assert volume["emptyDir"]["sizeLimit"]


@EVERY
def test_it_is_bounded_and_knows_what_it_runs(name):
    container = ours(name)
    assert container["resources"]["limits"]["memory"] in ("128Mi", "256Mi")
    assert "cpu" not in container["resources"]["limits"], "a throttled watchdog misses ticks"
    assert container["image"] == f"mwtrace:{__version__}"
    known = {option for parameter in cli.params for option in parameter.opts}
    words = [word for word in container["args"] if word.startswith("-")]
    assert words
    assert set(words) <= known
    assert CliRunner().invoke(cli, ["--help"]).exit_code == 0


def test_the_daemon_sees_the_node_and_the_sidecar_its_pod_alone():
    assert pod("daemonset.yaml")["hostPID"] is True
    assert "hostPID" not in pod("sidecar.yaml")
    assert pod("sidecar.yaml")["shareProcessNamespace"] is True
    selector = documents("daemonset.yaml")[-1]["spec"]["selector"]["matchLabels"]
    labels = documents("daemonset.yaml")[-1]["spec"]["template"]["metadata"]["labels"]
    assert selector.items() <= labels.items()
    namespace = documents("daemonset.yaml")[0]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "privileged"
    for document in documents("daemonset.yaml")[1:]:
        assert document["metadata"]["namespace"] == namespace["metadata"]["name"]


def test_the_image_is_made_of_the_wheel_and_starts_as_the_manifests_expect():
    steps = [
        line.split(maxsplit=1)
        for line in (ROOT / "packaging" / "Dockerfile").read_text().splitlines()
        if line and line[0].isupper()
    ]
    by_word = {word: rest for word, rest in steps}
    assert "mwtrace-*.whl" in by_word["COPY"]
    assert by_word["ENTRYPOINT"] == '["mwtrace"]'
    words = shlex.split(by_word["CMD"].strip("[]").replace(",", " "))
    assert words == ours("daemonset.yaml")["args"]
