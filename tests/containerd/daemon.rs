//! A containerd of the tests' own: in flows nothing but the programs of this machine, out comes a
//! pod sandbox in which containers can be started.
//!
//! Its sockets and directories are in a temporary directory. A small shell script outlives the
//! test process, however that ends, and clears everything away: it waits on a pipe that only the
//! test process holds.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use crate::{
    cri::{self, Runtime},
    image,
};

const IMAGE: &str = "docker.io/local/kubewire-test:1";

/// `$1` is the directory, `$2` containerd's process, `$3` the cgroup of its containers. Shims and
/// processes are recognized by the directory and the cgroup, which are ours alone.
const CLEAR: &str = r#"
trap '' INT TERM HUP
read -r _
dir=$1 daemon=$2 group=$3
inside() { for p in /proc/[0-9]*; do grep -qs -- "$group" $p/cgroup && echo ${p#/proc/}; done; }
shims() { for p in /proc/[0-9]*; do tr '\0' ' ' 2>/dev/null <$p/cmdline | grep -q -- "containerd-shim.*-address $dir/" && echo ${p#/proc/}; done; }
for p in $(inside); do kill -KILL $p 2>/dev/null; done
for n in 1 2 3 4 5 6 7 8 9 10; do [ -z "$(inside)" ] && break; sleep 0.2; done
kill -KILL $daemon 2>/dev/null
for p in $(shims); do kill -KILL $p 2>/dev/null; done
sleep 0.2
awk -v dir="$dir/" 'index($2, dir) == 1 { print $2 }' /proc/mounts | sort -r | while read -r m; do umount -l "$m"; done
for c in /sys/fs/cgroup /sys/fs/cgroup/*; do
  [ -d "$c/$group" ] && find "$c/$group" -depth -type d -exec rmdir {} + 2>/dev/null
done
rm -rf "$dir"
"#;

/// Why it cannot run here, if it cannot.
pub(crate) fn missing() -> Option<String> {
    for program in ["containerd", "ctr", "runc"] {
        let found = Command::new(program).arg("--version").output();
        if found.is_err() {
            return Some(format!("{program} is not installed"));
        }
    }
    if !Path::new("/bin/busybox").exists() {
        return Some("/bin/busybox is not installed (package busybox-static)".into());
    }
    match fs::metadata("/proc/self").map(|m| std::os::unix::fs::MetadataExt::uid(&m)) {
        Ok(0) => None,
        _ => Some("containerd needs root".into()),
    }
}

/// A running containerd with one pod sandbox.
pub(crate) struct Daemon {
    pub(crate) process: Child,
    socket: PathBuf,
    sandbox: String,
    config: cri::Sandbox,
    containers: AtomicU32,
    /// Held open: its end is the sign to clear away.
    clear: Child,
}

impl Daemon {
    /// Starts it and waits until it has a pod sandbox.
    pub(crate) async fn start() -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let group = format!("kubewire-test-{}-{number}", std::process::id());
        let dir = tempfile::Builder::new()
            .prefix("kubewire-")
            .tempdir()
            .expect("a temporary directory")
            .keep();
        let socket = dir.join("c.sock");
        let config = dir.join("config.toml");
        fs::create_dir(dir.join("cni")).expect("a directory");
        fs::write(&config, configuration(&dir)).expect("a file");
        let log = fs::File::create(dir.join("log")).expect("a file");
        let process = Command::new("containerd")
            .arg("-c")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(log)
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("containerd starts");
        let clear = Command::new("/bin/sh")
            .args(["-c", CLEAR, "clear"])
            .arg(&dir)
            .args([&process.id().to_string(), &group])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("sh starts");
        let mut daemon = Self {
            process,
            socket,
            sandbox: String::new(),
            config: sandbox(&group),
            containers: AtomicU32::new(0),
            clear,
        };
        if let Err(problem) = daemon.prepare(&dir).await {
            let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
            let tail: Vec<_> = log.lines().rev().take(20).collect();
            panic!("{problem}\n{tail:#?}");
        }
        daemon
    }

    async fn prepare(&mut self, dir: &Path) -> Result<(), String> {
        let archive = dir.join("image.tar");
        image::write(Path::new("/bin/busybox"), IMAGE, &archive).map_err(|e| e.to_string())?;
        let deadline = Instant::now() + Duration::from_secs(60);
        let patience = |problem: String| match Instant::now() < deadline {
            true => Ok(()),
            false => Err(problem),
        };
        loop {
            let import = Command::new("ctr")
                .arg("-a")
                .arg(&self.socket)
                .args(["-n", "k8s.io", "image", "import"])
                .arg(&archive)
                .output()
                .map_err(|error| error.to_string())?;
            if import.status.success() {
                break;
            }
            patience(String::from_utf8_lossy(&import.stderr).into_owned())?;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        // The CRI plugin learns of the image a little later.
        loop {
            let request = cri::RunPodSandbox {
                config: Some(self.config.clone()),
            };
            let made = match Runtime::connect(&self.socket).await {
                Ok(runtime) => runtime.call(request).await.map_err(|e| e.to_string()),
                Err(error) => Err(error.to_string()),
            };
            match made {
                Ok(sandbox) => {
                    self.sandbox = sandbox.id;
                    return Ok(());
                }
                Err(problem) => patience(problem)?,
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Its CRI service. A connection belongs to the tokio runtime that made it.
    pub(crate) async fn runtime(&self) -> Runtime {
        Runtime::connect(&self.socket).await.expect("a connection")
    }

    /// Starts a container; gives its id.
    pub(crate) async fn container(&self, command: &[String], stdin: bool, tty: bool) -> String {
        let number = self.containers.fetch_add(1, Ordering::Relaxed);
        let namespaces = Some(cri::Namespaces { network: cri::NODE });
        let config = cri::Container {
            metadata: Some(cri::ContainerMetadata {
                name: format!("c{number}"),
            }),
            image: Some(cri::Image {
                image: IMAGE.into(),
            }),
            command: command.to_vec(),
            stdin,
            tty,
            linux: Some(cri::LinuxContainer {
                security: Some(cri::ContainerSecurity { namespaces }),
            }),
        };
        let runtime = self.runtime().await;
        let create = cri::CreateContainer {
            sandbox: self.sandbox.clone(),
            config: Some(config),
            sandbox_config: Some(self.config.clone()),
        };
        let id = runtime.call(create).await.expect("a container").id;
        let start = cri::StartContainer { id: id.clone() };
        runtime.call(start).await.expect("it starts");
        id
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Waiting closes the script's pipe first.
        let _ = self.clear.wait();
        let _ = self.process.wait();
    }
}

fn configuration(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        r#"version = 2
root = "{dir}/root"
state = "{dir}/state"
[grpc]
  address = "{dir}/c.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{IMAGE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{dir}/cni"
    conf_dir = "{dir}/cni"
"#
    )
}

fn sandbox(group: &str) -> cri::Sandbox {
    let namespaces = Some(cri::Namespaces { network: cri::NODE });
    cri::Sandbox {
        metadata: Some(cri::Metadata {
            name: "pod".into(),
            uid: group.into(),
            namespace: "default".into(),
        }),
        linux: Some(cri::LinuxSandbox {
            cgroup_parent: format!("/{group}"),
            security: Some(cri::SandboxSecurity { namespaces }),
        }),
    }
}
