"""The cases of the Python client: each prints a line of the table."""

from kubernetes import client, config, stream, watch
from kubernetes.client.rest import ApiException

config.load_kube_config()
core = client.CoreV1Api()


def case(name, work):
    try:
        print(name, "|", work())
    except ApiException as error:
        print(name, "|", error.status, error.reason)


def exec_(command):
    session = stream.stream(
        core.connect_get_namespaced_pod_exec, "demo", "default", command=command,
        stdout=True, stderr=True, _preload_content=False)
    session.run_forever(timeout=60)
    return f"{session.read_stdout().strip()} {session.returncode}"


def watched():
    first = core.list_namespaced_config_map("default").metadata.resource_version
    core.create_namespaced_config_map("default", {"metadata": {"name": "watched"}})
    events = watch.Watch().stream(
        core.list_namespaced_config_map, "default", resource_version=first, timeout_seconds=30)
    event = next(iter(events))
    return f"{event['type']} {event['object'].metadata.name}"


def create():
    body = {"metadata": {"name": "made"}, "data": {"a": "b"}}
    return core.create_namespaced_config_map("default", body).data["a"]


case("list pods", lambda: [pod.metadata.name for pod in core.list_namespaced_pod("default").items])
case("exec", lambda: exec_(["echo", "hi"]))
case("exit code", lambda: exec_(["sh", "-c", "exit 3"]))
case("log", lambda: core.read_namespaced_pod_log("demo", "default").strip())
case("create", create)
case("create again", create)
case("patch", lambda: core.patch_namespaced_config_map("made", "default", {"data": {"a": "c"}}).data["a"])
case("watch", watched)
case("delete", lambda: core.delete_namespaced_config_map("made", "default")["status"])
case("missing", lambda: core.read_namespaced_config_map("made", "default"))
