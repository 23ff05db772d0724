// The cases of the JavaScript client: each prints a line of the table, as those of kubectl do.

import net from "node:net";
import { PassThrough } from "node:stream";
import * as k8s from "@kubernetes/client-node";

const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);
const image = process.env.KUBEWIRE_TEST_IMAGE ?? "docker.io/local/busybox:1";
const node = process.env.KUBEWIRE_TEST_NODE;
const namespace = "clients-javascript";

async function check(name, work) {
  let line;
  try {
    line = await work();
  } catch (error) {
    line = error.code ?? error.message;
  }
  console.log(`${name} | ${line}`);
}

async function until(work) {
  for (let tries = 0; tries < 800 && !(await work().catch(() => false)); tries += 1) {
    await new Promise((done) => setTimeout(done, 300));
  }
}

async function pod() {
  const spec = {
    terminationGracePeriodSeconds: 1, automountServiceAccountToken: false,
    containers: [{
      name: "main", image, imagePullPolicy: "IfNotPresent",
      command: ["sh", "-c", "echo started; exec sleep 100000"],
    }],
    ...(node ? { nodeName: node, hostNetwork: true, tolerations: [{ operator: "Exists" }] } : {}),
  };
  await core.createNamespacedPod({ namespace, body: { metadata: { name: "demo" }, spec } });
  const phase = async () => (await core.readNamespacedPod({ namespace, name: "demo" })).status.phase;
  await until(async () => (await phase()) === "Running");
  return phase();
}

function collect() {
  const stream = new PassThrough();
  const parts = [];
  stream.on("data", (part) => parts.push(part));
  return [stream, () => Buffer.concat(parts).toString().trim()];
}

async function exec(command, input) {
  const [output, text] = collect();
  const stdin = input === undefined ? null : new PassThrough();
  const status = await new Promise((done, failed) => {
    new k8s.Exec(config)
      .exec(namespace, "demo", "main", command, output, null, stdin, false, done)
      .then(() => stdin?.write(input))
      .catch(failed);
  });
  return `${text()} ${status.status} ${status.details?.causes?.[0]?.message ?? ""}`.trim();
}

async function forward() {
  const server = net.createServer((socket) => socket.on("data", (data) => socket.end(`${data}`.toUpperCase())));
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address();
  const asked = Array.from({ length: 8 }, async () => {
    const [output, text] = collect();
    const input = new PassThrough();
    const socket = await new k8s.PortForward(config, true).portForward(namespace, "demo", [port], output, null, input);
    input.write("hello");
    await until(async () => text() === "HELLO");
    (typeof socket === "function" ? socket() : socket)?.close();
    return text();
  });
  const answers = await Promise.all(asked);
  server.close();
  return answers.filter((answer) => answer === "HELLO").length;
}

async function informer() {
  const list = () => core.listNamespacedConfigMap({ namespace, labelSelector: "of=informer" });
  const seen = [];
  const path = `/api/v1/namespaces/${namespace}/configmaps`;
  const informer = k8s.makeInformer(config, path, list, "of=informer");
  for (const event of ["add", "update", "delete"]) {
    informer.on(event, (object) => seen.push(`${event} ${object.metadata.name}`));
  }
  informer.on("error", () => setTimeout(() => informer.start(), 100));
  await informer.start();
  const metadata = { name: "watched", labels: { of: "informer" } };
  await core.createNamespacedConfigMap({ namespace, body: { metadata } });
  await until(async () => seen.length === 1);
  await core.replaceNamespacedConfigMap({ namespace, name: "watched", body: { metadata, data: { a: "b" } } });
  await until(async () => seen.length === 2);
  await core.deleteNamespacedConfigMap({ namespace, name: "watched" });
  await until(async () => seen.length === 3);
  await informer.stop();
  return seen.join(" ");
}

async function log() {
  const [output, text] = collect();
  await new k8s.Log(config).log(namespace, "demo", "main", output, { tailLines: 1 });
  await until(async () => text() !== "");
  return text();
}

await core.deleteNamespace({ name: namespace }).catch(() => {});
await until(() => core.readNamespace({ name: namespace }).then(() => false, () => true));
await core.createNamespace({ body: { metadata: { name: namespace } } });
const map = { namespace, body: { metadata: { name: "made" }, data: { a: "b" } } };
const patch = (body, type) => core.patchNamespacedConfigMap(
  { namespace, name: "made", body, fieldManager: "script", force: type === k8s.PatchStrategy.ServerSideApply ? true : undefined },
  k8s.setHeaderOptions("Content-Type", type),
).then((made) => JSON.stringify(made.data));
await check("pod", pod);
await check("list pods", async () => (await core.listNamespacedPod({ namespace })).items.map((pod) => pod.metadata.name));
await check("exec", () => exec(["echo", "hi"]));
await check("exit code", () => exec(["sh", "-c", "exit 3"]));
await check("stdin", () => exec(["sh", "-c", "read line; echo got $line"], "a line\n"));
await check("log", log);
await check("port-forward", forward);
await check("create", async () => (await core.createNamespacedConfigMap(map)).data.a);
await check("create again", () => core.createNamespacedConfigMap(map));
await check("merge patch", () => patch({ data: { a: "c" } }, k8s.PatchStrategy.MergePatch));
await check("json patch", () => patch([{ op: "add", path: "/data/d", value: "e" }], k8s.PatchStrategy.JsonPatch));
await check("strategic patch", () => patch({ data: { f: "g" } }, k8s.PatchStrategy.StrategicMergePatch));
await check("apply", () => patch(
  { apiVersion: "v1", kind: "ConfigMap", metadata: { name: "made" }, data: { h: "i" } }, k8s.PatchStrategy.ServerSideApply));
await check("informer", informer);
await check("delete", async () => (await core.deleteNamespacedConfigMap({ namespace, name: "made" })).status);
await check("missing", () => core.readNamespacedConfigMap({ namespace, name: "made" }));
await check("delete namespace", async () => (await core.deleteNamespace({ name: namespace })) && "begun");
process.exit(0);
