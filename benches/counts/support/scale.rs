//! How cost grows with size: the same work at many sizes, as data and as pictures.

#[path = "scale/connections.rs"]
mod connections;
#[path = "scale/sessions.rs"]
mod sessions;

use std::fmt::Write as _;

use bytes::BytesMut;
use kubewire::{
    Role,
    exec::{Streams, Subprotocol},
    session::{Session as _, remote_command::RemoteCommand},
    wire::websocket::Decoder,
};

use super::{Case, Instant, KeepaliveConfig, case, frames, initial};

/// One work at sizes that grow.
pub(crate) struct Series {
    /// Its files, in `docs/scale`.
    pub(crate) name: &'static str,
    title: &'static str,
    x: &'static str,
    pub(crate) unit: Unit,
    pub(crate) sizes: &'static [usize],
    pub(crate) at: fn(usize) -> Case,
}

/// What is counted.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Unit {
    /// Those of the work.
    Instructions,
    /// Those that what the work gives holds of what it allocated.
    Bytes,
}

pub(crate) const SERIES: [Series; 6] = [
    Series {
        name: "mirror",
        title: "Instructions an object, metadata in protobuf into a mirror",
        x: "objects",
        unit: Unit::Instructions,
        sizes: &[1, 10, 100, 1_000, 10_000, 100_000],
        at: initial::of,
    },
    Series {
        name: "frames",
        title: "Instructions a frame of exec, from the socket's buffer to the handle",
        x: "bytes of a frame",
        unit: Unit::Instructions,
        sizes: &[
            16,
            64,
            256,
            1 << 10,
            4 << 10,
            16 << 10,
            64 << 10,
            256 << 10,
            1 << 20,
        ],
        at: exec_frames,
    },
    Series {
        name: "sessions",
        title: "Instructions of an idle exec session in 20 s: a ping and its pong",
        x: "sessions",
        unit: Unit::Instructions,
        sizes: &[1, 10, 100, 1_000, 10_000],
        at: sessions::idle,
    },
    Series {
        name: "sessions-memory",
        title: "Bytes that an idle exec session holds, its socket not counted",
        x: "sessions",
        unit: Unit::Bytes,
        sizes: &[1, 10, 100, 1_000, 10_000],
        at: sessions::open,
    },
    Series {
        name: "connections",
        title: "Instructions of a connection in a tunnel: opened, asked, answered and ended",
        x: "connections at a time",
        unit: Unit::Instructions,
        sizes: &[1, 10, 100, 1_000],
        at: connections::whole,
    },
    Series {
        name: "connections-memory",
        title: "Bytes that an open connection in a tunnel holds",
        x: "connections",
        unit: Unit::Bytes,
        sizes: &[1, 10, 100, 1_000],
        at: connections::open,
    },
];

fn exec_frames(size: usize) -> Case {
    let count = ((1 << 20) / size).clamp(8, 1000);
    let streams = Streams {
        stdout: true,
        ..Streams::default()
    };
    case(
        "frames",
        count,
        count * size,
        move || {
            let now = Instant::now();
            let keepalive = KeepaliveConfig::default();
            let session =
                RemoteCommand::new(Role::Client, Subprotocol::V5, streams, keepalive, now);
            let wire = frames(Some(1), size, count);
            (session, wire, Vec::with_capacity(count), now)
        },
        move |(mut session, mut wire, mut events, now): (_, BytesMut, _, _)| {
            let mut decoder = Decoder::new(Role::Client, 2 << 20);
            while let Some(message) = decoder.decode(&mut wire).unwrap() {
                session.handle_message(now, message);
                events.extend(session.poll_event());
            }
            assert_eq!(events.len(), count);
            (session, events)
        },
    )
}

impl Series {
    /// Sizes and costs, a line each.
    pub(crate) fn data(&self, costs: &[f64]) -> String {
        let unit = match self.unit {
            Unit::Instructions => "instructions",
            Unit::Bytes => "bytes",
        };
        let mut data = format!("{},{unit}\n", self.x);
        for (size, cost) in self.sizes.iter().zip(costs) {
            writeln!(data, "{size},{cost:.1}").unwrap();
        }
        data
    }

    /// The same as a picture: sizes by their logarithm, costs from zero on.
    pub(crate) fn picture(&self, costs: &[f64]) -> String {
        const WIDTH: f64 = 560.0;
        const HEIGHT: f64 = 220.0;
        const LEFT: f64 = 60.0;
        const TOP: f64 = 40.0;
        let log = |size: usize| (size as f64).ln();
        let (first, last) = (log(self.sizes[0]), log(self.sizes[self.sizes.len() - 1]));
        let most = costs.iter().copied().fold(0.0, f64::max);
        let at = |size: usize, cost: f64| {
            let x = LEFT + (log(size) - first) / (last - first) * WIDTH;
            (x, TOP + HEIGHT - cost / most * HEIGHT)
        };
        let mut picture = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"680\" height=\"320\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"680\" height=\"320\" fill=\"white\"/>\n\
             <text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{}</text>\n\
             <path d=\"M{LEFT} {TOP}V{bottom}H{right}\" fill=\"none\" stroke=\"#888\"/>\n\
             <text x=\"340\" y=\"312\" text-anchor=\"middle\">{}</text>\n",
            self.title,
            self.x,
            bottom = TOP + HEIGHT,
            right = LEFT + WIDTH,
        );
        let mut line = String::new();
        for (size, cost) in self.sizes.iter().copied().zip(costs.iter().copied()) {
            let (x, y) = at(size, cost);
            let bottom = TOP + HEIGHT + 16.0;
            write!(line, "{x:.1},{y:.1} ").unwrap();
            writeln!(
                picture,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"#1f5fa8\"/>\
                 <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{cost:.0}</text>\
                 <text x=\"{x:.1}\" y=\"{bottom}\" text-anchor=\"middle\">{}</text>",
                y - 8.0,
                short(size),
            )
            .unwrap();
        }
        writeln!(
            picture,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"#1f5fa8\"/>\n</svg>",
            line.trim_end()
        )
        .unwrap();
        picture
    }
}

fn short(size: usize) -> String {
    match size {
        size if size % (1 << 20) == 0 => format!("{} Mi", size >> 20),
        size if size % (1 << 10) == 0 => format!("{} Ki", size >> 10),
        size if size >= 1000 && size % 1000 == 0 => format!("{} k", size / 1000),
        size => size.to_string(),
    }
}
