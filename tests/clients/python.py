"""The cases of the Python client: each prints a line of the table, as those of kubectl do."""

import os
import socket
import threading
import time

from kubernetes import client, config, stream, watch
from kubernetes.client.rest import ApiException
from kubernetes.stream import portforward

config.load_kube_config()
core = client.CoreV1Api()
IMAGE = os.environ.get("KUBEWIRE_TEST_IMAGE", "docker.io/local/busybox:1")
NODE = os.environ.get("KUBEWIRE_TEST_NODE")
NAMESPACE = "clients-python"


def case(name, work):
    try:
        print(name, "|", work(), flush=True)
    except ApiException as error:
        print(name, "|", error.status, error.reason, flush=True)


def until(work, seconds=240):
    end = time.monotonic() + seconds
    while not work() and time.monotonic() < end:
        time.sleep(0.3)


def pod():
    spec = {
        "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": False,
        "containers": [{
            "name": "main", "image": IMAGE, "imagePullPolicy": "IfNotPresent",
            "command": ["sh", "-c", "echo started; exec sleep 100000"],
        }],
    }
    if NODE:
        spec |= {"nodeName": NODE, "hostNetwork": True, "tolerations": [{"operator": "Exists"}]}
    body = {"metadata": {"name": "demo", "labels": {"app": "demo"}}, "spec": spec}
    core.create_namespaced_pod(NAMESPACE, body)
    phase = lambda: core.read_namespaced_pod("demo", NAMESPACE).status.phase
    until(lambda: phase() == "Running")
    return phase()


def opened(command, **options):
    return stream.stream(
        core.connect_get_namespaced_pod_exec, "demo", NAMESPACE, command=command,
        stdout=True, stderr=True, _preload_content=False, **options)


def exec_(command):
    session = opened(command)
    session.run_forever(timeout=60)
    return f"{session.read_stdout().strip()} {session.returncode}"


def stdin():
    session = opened(["sh", "-c", "read line; echo got $line"], stdin=True)
    session.write_stdin("a line\n")
    session.run_forever(timeout=60)
    return session.read_stdout().strip()


def forwarded():
    """Eight connections at once, and a refused port between."""
    listener = socket.create_server(("127.0.0.1", 0))
    with socket.create_server(("127.0.0.1", 0)) as other:
        refused = other.getsockname()[1]

    def serve():
        while True:
            connection, _ = listener.accept()
            connection.sendall(connection.recv(1000).upper())
            connection.close()

    threading.Thread(target=serve, daemon=True).start()
    port, answers = listener.getsockname()[1], []

    # The client's functions change the client while they run: one for each.
    def opened(port):
        own = client.CoreV1Api(client.ApiClient())
        connect = own.connect_get_namespaced_pod_portforward
        return portforward(connect, "demo", NAMESPACE, ports=str(port))

    def ask():
        forward = opened(port)
        connection = forward.socket(port)
        connection.settimeout(60)
        connection.sendall(b"hello")
        answers.append(connection.recv(1000))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads[:4]:
        thread.start()
    forward = opened(refused)
    until(lambda: forward.error(refused), 30)
    for thread in threads[4:]:
        thread.start()
    for thread in threads:
        thread.join()
    return f"{answers.count(b'HELLO')}, {'connection refused' in (forward.error(refused) or '')}"


def create():
    body = {"metadata": {"name": "made"}, "data": {"a": "b"}}
    return core.create_namespaced_config_map(NAMESPACE, body).data["a"]


def informer():
    """A watch that ends, and the next that goes on where it was: nothing is missed."""
    listed = core.list_namespaced_config_map(NAMESPACE, label_selector="of=informer")
    seen, version = [], listed.metadata.resource_version
    for name in ["first", "second"]:
        body = {"metadata": {"name": name, "labels": {"of": "informer"}}}
        core.create_namespaced_config_map(NAMESPACE, body)
        for event in watch.Watch().stream(
                core.list_namespaced_config_map, NAMESPACE, label_selector="of=informer",
                resource_version=version, timeout_seconds=2):
            seen.append(f"{event['type']} {event['object'].metadata.name}")
            version = event["object"].metadata.resource_version
    return " ".join(seen)


try:
    core.delete_namespace(NAMESPACE)
    until(lambda: NAMESPACE not in [n.metadata.name for n in core.list_namespace().items])
except ApiException:
    pass
core.create_namespace({"metadata": {"name": NAMESPACE}})

case("pod", pod)
case("list pods", lambda: [pod.metadata.name for pod in core.list_namespaced_pod(NAMESPACE).items])
case("exec", lambda: exec_(["echo", "hi"]))
case("exit code", lambda: exec_(["sh", "-c", "exit 3"]))
case("stdin", stdin)
case("port-forward", forwarded)
case("log", lambda: core.read_namespaced_pod_log("demo", NAMESPACE).strip())
case("log, tail", lambda: core.read_namespaced_pod_log("demo", NAMESPACE, tail_lines=0))
case("log of no container", lambda: core.read_namespaced_pod_log("demo", NAMESPACE, container="nope"))
case("create", create)
case("create again", create)
case("patch", lambda: core.patch_namespaced_config_map("made", NAMESPACE, {"data": {"a": "c"}}).data["a"])
case("replace of an old version", lambda: core.replace_namespaced_config_map("made", NAMESPACE, {
    "metadata": {"name": "made", "resourceVersion": "1"}}))
case("informer", informer)
case("selector", lambda: len(core.list_namespaced_config_map(NAMESPACE, label_selector="of=informer").items))
case("bad selector", lambda: core.list_namespaced_config_map(NAMESPACE, field_selector="bad=1"))
case("delete", lambda: core.delete_namespaced_config_map("made", NAMESPACE)["status"])
case("missing", lambda: core.read_namespaced_config_map("made", NAMESPACE))
case("delete namespace", lambda: core.delete_namespace(NAMESPACE) and "begun")
