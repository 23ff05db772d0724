//! `cp` of a large tree beside kubectl's: time, processor and memory, sides by turns.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::{kubectl, tool, tree};

/// What one run took.
#[derive(Debug)]
struct Cost {
    wall: Duration,
    /// User and system time.
    cpu: Duration,
    /// The most memory at once, in KiB.
    memory: u64,
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (wall, cpu) = (self.wall.as_secs_f64(), self.cpu.as_secs_f64());
        write!(f, "{wall:.1} s, {cpu:.1} s of CPU, {} KiB", self.memory)
    }
}

fn run(program: &Path, kubeconfig: &Path, arguments: &[&str]) -> Cost {
    let start = Instant::now();
    let mut child = Command::new(program)
        .args(arguments)
        .env("KUBECONFIG", kubeconfig)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let (stat, status) = (
        format!("/proc/{}/stat", child.id()),
        format!("/proc/{}/status", child.id()),
    );
    let mut memory = 0;
    let ticks = loop {
        // As long as nobody has waited for it, its numbers are there.
        if let Ok(text) = fs::read_to_string(&status) {
            let line = text.lines().find(|line| line.starts_with("VmHWM:"));
            let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
            memory = number.unwrap_or(memory);
        }
        if let Ok(text) = fs::read_to_string(&stat) {
            let fields: Vec<_> = text.rsplit(") ").next().unwrap().split(' ').collect();
            let ticks = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
            if fields[0] == "Z" {
                break ticks;
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let ended = child.wait().unwrap();
    assert!(ended.success(), "{program:?} {arguments:?}");
    Cost {
        wall: start.elapsed(),
        cpu: Duration::from_millis(ticks * 10),
        memory,
    }
}

/// `KUBEWIRE_COPY_FILES` and `KUBEWIRE_COPY_MIB` give the tree, 20,000 files and 1 GiB unless set;
/// `KUBEWIRE_COPY_TOOL` the tool, for one that is built for speed; `KUBEWIRE_COPY_ROUNDS` how often.
/// `KUBEWIRE_COPY_KUBECONFIG` and `KUBEWIRE_COPY_POD` name a pod of a real cluster, whose `/tmp` is
/// used.
///
/// kubectl 1.37 takes no name with a backslash, leaves links out and hard-linked files empty. So the two
/// are compared with a plain tree, and the other is ours alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "copies gigabytes; run it with --ignored --nocapture, and kubectl in PATH"]
async fn a_large_tree_beside_kubectl() {
    let Some(kubectl) = kubectl::kubectl() else {
        return;
    };
    let number = |name: &str, otherwise: u64| {
        let value = std::env::var(name).ok();
        value.map_or(otherwise, |it| it.parse().unwrap())
    };
    let files = number("KUBEWIRE_COPY_FILES", 20_000);
    let bytes = number("KUBEWIRE_COPY_MIB", 1024) << 20;
    let ours = std::env::var_os("KUBEWIRE_COPY_TOOL");
    let ours = ours.map_or_else(|| PathBuf::from(tool::KUBEWIRE), PathBuf::from);
    let dir = tempfile::tempdir().unwrap();
    let (odd, plain) = (dir.path().join("odd"), dir.path().join("plain"));
    tree::plant(&odd, files, bytes).unwrap();
    tree::plant_plain(&plain, files, bytes).unwrap();
    let real = std::env::var_os("KUBEWIRE_COPY_KUBECONFIG").map(PathBuf::from);
    let cluster = match real {
        None => Some(tool::Cluster::start().await),
        Some(_) => None,
    };
    let kubeconfig = real.unwrap_or_else(|| cluster.as_ref().unwrap().kubeconfig());
    let pod = std::env::var("KUBEWIRE_COPY_POD").unwrap_or_else(|_| "web-0".to_owned());
    let place = match cluster {
        Some(_) => dir.path().to_str().unwrap().to_owned(),
        None => "/tmp".to_owned(),
    };
    let (there, back) = (format!("{place}/there"), dir.path().join("back"));
    // There and back; the copy is gone then.
    let both_ways = |program: &Path, tree: &Path| {
        let (from, to) = (tree.to_str().unwrap(), back.to_str().unwrap());
        let remote = format!("{pod}:{there}");
        let remote = remote.as_str();
        let costs = [[from, remote], [remote, to]]
            .map(|[from, to]| run(program, &kubeconfig, &["cp", "-c", "main", from, to]));
        assert_eq!(tree::digest(&back).unwrap(), tree::digest(tree).unwrap());
        fs::remove_dir_all(&back).unwrap();
        let remove = ["exec", &pod, "-c", "main", "--", "rm", "-rf", &there];
        run(&kubectl, &kubeconfig, &remove);
        costs
    };
    let [up, down] = both_ways(&ours, &odd);
    println!("odd names, links and holes: there {up}, back {down}");
    let memory = up.memory.max(down.memory);
    assert!(memory < 32 << 10, "more than 32 MiB: {memory} KiB");
    let mut sides = [
        ("kubewire", &ours, Vec::new()),
        ("kubectl", &kubectl, Vec::new()),
    ];
    for _ in 0..number("KUBEWIRE_COPY_ROUNDS", 3) {
        for (name, program, costs) in &mut sides {
            let [up, down] = both_ways(program, &plain);
            println!("{name}: there {up}, back {down}");
            costs.push([up, down]);
        }
        // Who begins, changes.
        sides.reverse();
    }
    for (way, at) in [("there", 0), ("back", 1)] {
        for (name, _, costs) in &sides {
            let mut walls: Vec<_> = costs.iter().map(|it| it[at].wall.as_secs_f64()).collect();
            walls.sort_by(f64::total_cmp);
            let median = walls[walls.len() / 2];
            println!("{way}, {name}: median {median:.1} s of {walls:.1?}");
        }
    }
}
