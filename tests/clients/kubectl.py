"""The cases of kubectl: each prints a line of the table, which is the same for every cluster.

KUBECTL names the program. Pods are of KUBEWIRE_TEST_IMAGE; with KUBEWIRE_TEST_NODE they name that
node and have its network, which must be that of this machine."""

import fcntl
import hashlib
import http.server
import json
import os
import pty
import re
import select
import socket
import struct
import subprocess
import tempfile
import termios
import threading
import time

KUBECTL = os.environ.get("KUBECTL", "kubectl")
IMAGE = os.environ.get("KUBEWIRE_TEST_IMAGE", "docker.io/local/busybox:1")
NODE = os.environ.get("KUBEWIRE_TEST_NODE")
NAMESPACE = "clients-kubectl"
SIZE = 100 << 20
PATIENCE = 240


def pod(name, command, restart="Never"):
    spec = {
        "restartPolicy": restart,
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "containers": [{
            "name": "main", "image": IMAGE, "imagePullPolicy": "IfNotPresent",
            "command": ["sh", "-c", command],
        }],
    }
    if NODE:
        spec |= {"nodeName": NODE, "hostNetwork": True, "tolerations": [{"operator": "Exists"}]}
    return json.dumps({
        "apiVersion": "v1", "kind": "Pod", "spec": spec,
        "metadata": {"name": name, "labels": {"app": name}},
    })


def start(*arguments, **options):
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE,
               "stderr": subprocess.STDOUT, "text": True} | options
    return subprocess.Popen([KUBECTL, "-n", NAMESPACE, *arguments], **options)


def kubectl(*arguments, input=None):
    """All that it prints, and how it ends."""
    run = start(*arguments, stdin=subprocess.DEVNULL if input is None else subprocess.PIPE)
    text, _ = run.communicate(input, timeout=PATIENCE)
    return text.strip(), run.returncode


def case(name, line):
    print(name, "|", line, flush=True)


def plain(*arguments, input=None):
    """A case that is its command, and the first line that that prints."""
    text, _ = kubectl(*arguments, input=input)
    case(" ".join(arguments), text.split("\n")[0])


def until(wanted, *arguments):
    end = time.monotonic() + PATIENCE
    while True:
        text, _ = kubectl(*arguments)
        if wanted(text) or time.monotonic() > end:
            return text
        time.sleep(0.3)


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def echo(port):
    """Whether what is sent to a port comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(b"x" * 100_000)
        connection.settimeout(60)
        received = 0
        while received < 100_000:
            try:
                part = connection.recv(1 << 16)
            except ConnectionResetError:
                part = b""
            if not part:
                return False
            received += len(part)
        return True


def echo_server():
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection):
        with connection:
            while part := connection.recv(1 << 16):
                connection.sendall(part)

    def accept():
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def forward(*ports):
    run = start("port-forward", "pod/demo", *[f":{port}" for port in ports])
    local = []
    while len(local) < len(ports):
        line = run.stdout.readline()
        if found := re.search(r"from 127\.0\.0\.1:(\d+)", line):
            local.append(int(found[1]))
        elif not line:
            raise RuntimeError("port-forward ended")
    return run, local


def port_forward():
    served, refused = echo_server(), free_port()
    run, (port, nothing) = forward(served, refused)
    answered = sum(echo(port) for _ in range(4))
    case("port-forward, four connections", answered)
    case("port-forward, a refused one", echo(nothing))
    # The tunnel may be given up: kubectl's own rule.
    run.kill()
    run, (port,) = forward(served)
    results = []
    threads = [threading.Thread(target=lambda: results.append(echo(port))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    case("port-forward, eight at once", sum(results))
    run.kill()


def terminal():
    """The terminal's size, and that after a resize."""
    child, master = pty.fork()
    if child == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        script = "".join(
            f'until [ "$(stty size 2>/dev/null)" = "{size}" ]; do sleep 1; done; echo {word}; '
            for size, word in [("24 80", "first"), ("30 100", "second")]) + "exit 4"
        arguments = ["-n", NAMESPACE, "exec", "-it", "demo", "--", "sh", "-c", script]
        os.execvp(KUBECTL, [KUBECTL, *arguments])
    text, end, resized = "", time.monotonic() + PATIENCE, False
    while time.monotonic() < end:
        if select.select([master], [], [], 1)[0]:
            try:
                text += os.read(master, 1 << 16).decode(errors="replace")
            except OSError:
                break
        if "first" in text and not resized:
            fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
            resized = True
    os.close(master)
    _, status = os.waitpid(child, 0)
    case("exec -it, two sizes", f"{text.split()} {os.waitstatus_to_exitcode(status)}")


def copies():
    with tempfile.TemporaryDirectory() as directory:
        there, here, back = f"/tmp/clients-{os.getpid()}", f"{directory}/a", f"{directory}/b"
        block = os.urandom(1 << 20)
        with open(here, "wb") as file:
            for number in range(SIZE >> 20):
                file.write(number.to_bytes(4, "big") + block[4:])
        text, code = kubectl("cp", here, f"demo:{there}")
        case("cp 100 MiB there", code or "0")
        kubectl("cp", f"demo:{there}", back)
        case("cp 100 MiB back", "the same" if digest(here) == digest(back) else "another")
        kubectl("exec", "demo", "--", "rm", "-f", there)


def watch():
    run = start("get", "configmaps", "-w", "--output-watch-events", "--no-headers",
                "--field-selector=metadata.name=watched")
    time.sleep(2)
    kubectl("create", "configmap", "watched")
    kubectl("label", "configmap", "watched", "a=b")
    kubectl("delete", "configmap", "watched")
    events = []
    while len(events) < 3 and (line := run.stdout.readline()):
        events.append(line.split()[0])
    run.kill()
    case("get -w", " ".join(events))


def proxied():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(f"you asked for {self.path}\n".encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("0.0.0.0" if NODE else "127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = server.server_address[1]
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/demo:{port}/proxy/some/path?x=y"
    case("get --raw of a pod's proxy", kubectl("get", "--raw", path)[0])


kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found")
kubectl("create", "namespace", NAMESPACE)
long = "echo started; echo second; exec sleep 100000"
plain("apply", "-f", "-", input=pod("demo", long))
kubectl("apply", "-f", "-", input=pod("again", "echo run; sleep 2; exit 1", "Always"))
kubectl("apply", "-f", "-", input=pod("done", "for n in 1 2 3; do echo $n; sleep 1; done"))

plain("wait", "--for=condition=Ready", "pod/demo", f"--timeout={PATIENCE}s")
plain("get", "pods", "-l", "app=demo", "-o", "name")
plain("exec", "demo", "--", "echo", "hi")
case("exec, exit code", kubectl("exec", "demo", "--", "sh", "-c", "exit 3"))
case("exec -i", kubectl("exec", "-i", "demo", "--", "wc", "-c", input="x" * 1_000_000)[0])
case("exec of what is not there", kubectl("exec", "demo", "--", "nothing")[1] != 0)
terminal()
copies()
port_forward()
proxied()

plain("logs", "demo")
plain("logs", "demo", "--tail=1")
case("logs --since", kubectl("logs", "demo", "--since=1h")[0].split())
case("logs --since, none", kubectl("logs", "demo", "--since-time=2100-01-01T00:00:00Z"))
case("logs -l", kubectl("logs", "-l", "app=demo", "--prefix")[0].split("\n"))
case("logs -f", kubectl("logs", "-f", "done"))
case("logs -p", until(lambda text: text == "run", "logs", "-p", "again"))
plain("logs", "demo", "-c", "nope")

kubectl("debug", "demo", f"--image={IMAGE}", "--container=debugger", "--", "sh", "-c", "echo debugged; sleep 1000")
case("debug", until(lambda text: text == "debugged", "logs", "demo", "-c", "debugger"))
case("debug, exec", kubectl("exec", "demo", "-c", "debugger", "--", "echo", "inside")[0])

for kind in [
    ("configmap", "made", "--from-literal=a=b"),
    ("secret", "generic", "made", "--from-literal=a=b"),
    ("serviceaccount", "made"),
    ("role", "made", "--verb=get", "--resource=pods"),
    ("rolebinding", "made", "--role=made", "--serviceaccount=default:made"),
    ("deployment", "made", f"--image={IMAGE}", "--replicas=0"),
    ("job", "made", f"--image={IMAGE}", "--", "true"),
    ("cronjob", "made", f"--image={IMAGE}", "--schedule=0 0 1 1 *", "--", "true"),
    ("service", "clusterip", "made", "--tcp=80:80"),
    ("ingress", "made", "--rule=example.com/=made:80"),
    ("quota", "made", "--hard=pods=20"),
    ("poddisruptionbudget", "made", "--selector=a=b", "--min-available=1"),
]:
    case(f"create {kind[0]}", kubectl("create", *kind)[0])
plain("create", "configmap", "made", "--from-literal=a=b")
plain("scale", "deployment", "made", "--replicas=3")
plain("get", "deployment", "made", "-o", "jsonpath={.spec.replicas}")

manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: applied\ndata:\n  a: b\n"
for arguments in [("apply",), ("apply",), ("apply", "--server-side", "--force-conflicts")]:
    plain(*arguments, "-f", "-", input=manifest)
misspelt, _ = kubectl("apply", "-f", "-", input=manifest + "dta: {}\n")
case("apply of a misspelt field", misspelt.split(": ", 1)[0] + misspelt[-50:])
case("diff", kubectl("diff", "-f", "-", input=manifest.replace("a: b", "a: c"))[1])
plain("patch", "configmap", "made", "--type=json", "-p", '[{"op":"add","path":"/data/c","value":"d"}]')
plain("patch", "configmap", "made", "--type=merge", "-p", '{"data":{"a":"x"}}')
plain("patch", "configmap", "made", "--type=strategic", "-p", '{"data":{"e":"f"}}')
plain("get", "configmap", "made", "-o", "jsonpath={.data}")
plain("explain", "pod.spec.containers.ports.containerPort")
plain("label", "pod", "demo", "x=y")
watch()
plain("auth", "can-i", "list", "pods")
plain("auth", "can-i", "list", "pods", "--as=nobody")
plain("get", "things")
plain("get", "configmap", "nothing")
plain("get", "pods", "--field-selector=bad=1")
plain("delete", "configmap", "made")
plain("delete", "pod", "demo", "--wait")
plain("get", "pod", "demo")
case("delete namespace", kubectl("delete", "namespace", NAMESPACE, "--wait=false")[0].split("\n")[-1])
