//! The rows of the table: which work, how much of it, and which sides can do it.

/// One kind of work.
pub(crate) enum Work {
    /// Output of exec in frames of a size, so many bytes altogether.
    Stdout { frame: usize, total: usize },
    /// Input of exec in writes of 32 KiB.
    Stdin { total: usize },
    /// 64 bytes there and back, one after the other.
    Echo,
    /// Sessions that do nothing.
    Idle { sessions: usize },
    /// The identity of Pods from a watch's body.
    Metadata,
    /// Whole Pods from a watch's body.
    Typed,
    /// Whole Pods from a watch's body, in protobuf where the side can.
    Messages,
    /// Five fields of Pods from a watch's body; kube-rs whole ones, and tuned the same five.
    Partial,
    /// Whole Pods but for their managedFields; kube-rs has only whole ones.
    Unmanaged,
    /// The metadata of many Pods from a watch's body into a mirror.
    Initial,
    /// Lines of 100 bytes from a log's body.
    Lines,
    /// 64 connections of 16 MiB through one tunnel.
    Bulk,
    /// From opening a connection to its first byte.
    Open,
}

/// What kubewire is to reach.
pub(crate) enum Goal {
    /// This many times what another side does; where less is better, at most so much of it.
    Times(f64, &'static str),
    /// This figure.
    Figure(f64),
    /// Nothing is promised.
    None,
}

pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    /// The kind of server it needs.
    pub(crate) server: &'static str,
    pub(crate) work: Work,
    pub(crate) sides: &'static [&'static str],
    /// Whether less is better.
    pub(crate) less: bool,
    pub(crate) goal: Goal,
}

/// kube-rs moves little through its pipes of 1 KiB: it gets this part of the work, and its CPU
/// time is multiplied.
pub(crate) const KUBE_PART: usize = 8;

/// So much of the work is done: all of it, and in debug builds, which only show that it runs, less.
pub(crate) const fn share(amount: usize) -> usize {
    match cfg!(debug_assertions) {
        true => amount / 16,
        false => amount,
    }
}

const STREAMS: &[&str] = &["kubewire", "raw", "tungstenite", "kube-rs-tuned", "kube-rs"];
const WITH_KUBECTL: &[&str] = &[
    "kubewire",
    "raw",
    "tungstenite",
    "kube-rs-tuned",
    "kube-rs",
    "kubectl",
];

pub(crate) fn all() -> Vec<Row> {
    let stdout = |name, server, frame, total, sides| Row {
        name,
        unit: "MiB/s",
        server,
        work: Work::Stdout {
            frame,
            total: share(total),
        },
        sides,
        less: false,
        goal: match frame {
            // 5 million a second.
            64 => Goal::Figure(64.0 * 5e6 / (1 << 20) as f64),
            _ => Goal::Times(0.9, "raw"),
        },
    };
    let memory = |name, work, unit, sides, goal| Row {
        name,
        unit,
        server: "none",
        work,
        sides,
        less: false,
        goal,
    };
    vec![
        stdout("exec stdout, 64 B", "stdout-64", 64, 64 << 20, STREAMS),
        stdout(
            "exec stdout, 1 KiB",
            "stdout-1024",
            1 << 10,
            512 << 20,
            STREAMS,
        ),
        stdout(
            "exec stdout, 32 KiB",
            "stdout-32768",
            32 << 10,
            1 << 30,
            WITH_KUBECTL,
        ),
        stdout(
            "exec stdout, 1 KiB, TLS",
            "stdout-1024-tls",
            1 << 10,
            512 << 20,
            STREAMS,
        ),
        stdout(
            "exec stdout, 32 KiB, TLS",
            "stdout-32768-tls",
            32 << 10,
            1 << 30,
            WITH_KUBECTL,
        ),
        Row {
            name: "exec stdin, 32 KiB",
            unit: "MiB/s",
            server: "stdin",
            work: Work::Stdin {
                total: share(512 << 20),
            },
            sides: STREAMS,
            less: false,
            goal: Goal::Times(0.9, "raw"),
        },
        Row {
            name: "exec echo, 64 B",
            unit: "µs",
            server: "echo",
            work: Work::Echo,
            sides: STREAMS,
            less: true,
            goal: Goal::Times(1.3, "raw"),
        },
        Row {
            name: "idle exec session",
            unit: "KiB",
            server: "idle",
            work: Work::Idle {
                sessions: share(1000),
            },
            sides: &["kubewire", "raw", "kube-rs"],
            less: true,
            goal: Goal::Figure(8.0),
        },
        Row {
            name: "idle exec session, TLS",
            unit: "KiB",
            server: "idle-tls",
            work: Work::Idle {
                sessions: share(1000),
            },
            sides: &["kubewire", "raw", "kube-rs"],
            less: true,
            goal: Goal::Figure(24.0),
        },
        memory(
            "watch, metadata of Pods",
            Work::Metadata,
            "events/s",
            &["kubewire", "kube-rs"],
            Goal::Figure(1.5e6),
        ),
        memory(
            "watch, typed Pods",
            Work::Typed,
            "events/s",
            &["kubewire", "kube-rs"],
            Goal::Times(2.0, "kube-rs"),
        ),
        memory(
            "watch, typed Pods, protobuf",
            Work::Messages,
            "events/s",
            &["kubewire", "kube-rs"],
            Goal::Times(4.0, "kube-rs"),
        ),
        memory(
            "watch, five fields of Pods",
            Work::Partial,
            "events/s",
            &["kubewire", "kube-rs-tuned", "kube-rs"],
            Goal::Times(8.0, "kube-rs"),
        ),
        memory(
            "watch, typed Pods without managedFields",
            Work::Unmanaged,
            "events/s",
            &["kubewire", "kube-rs"],
            Goal::None,
        ),
        memory(
            "initial list of 50,000, metadata",
            Work::Initial,
            "objects/s",
            &["kubewire", "raw", "kube-rs"],
            Goal::Times(0.83, "raw"),
        ),
        memory(
            "log lines, 100 B",
            Work::Lines,
            "lines/s",
            &["kubewire", "raw", "kube-rs"],
            Goal::Times(6.0, "kube-rs"),
        ),
        Row {
            name: "port-forward, 64 x 16 MiB",
            unit: "MiB/s",
            server: "forward",
            work: Work::Bulk,
            sides: &["kubewire", "raw", "kube-rs", "kubectl"],
            less: false,
            goal: Goal::Times(0.85, "raw"),
        },
        Row {
            name: "port-forward, open",
            unit: "µs",
            server: "forward",
            work: Work::Open,
            sides: &["kubewire", "raw", "kube-rs", "kubectl"],
            less: true,
            goal: Goal::Times(1.5, "raw"),
        },
    ]
}

pub(crate) fn find(name: &str) -> Option<Row> {
    all().into_iter().find(|row| row.name == name)
}
