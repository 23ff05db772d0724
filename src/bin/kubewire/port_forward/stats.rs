//! `--stats`: in flow the connections of all listeners, out comes a table of them on the terminal,
//! drawn again and again in its place.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::SocketAddr,
    time::Duration,
};

use kubewire::port_forward::Traffic;

use super::Ended;
use crate::{printable::Printable, table::Layout, terminal::Drawing};

/// How often it is drawn.
pub(super) const PERIOD: Duration = Duration::from_millis(500);

/// Connections that have ended and are still shown.
const ENDED: usize = 10;

#[derive(Default)]
pub(super) struct Stats {
    /// By port.
    open: BTreeMap<String, Vec<(SocketAddr, Traffic)>>,
    said: Option<String>,
    ended: VecDeque<Row>,
    succeeded: u64,
    failed: u64,
    sent: u64,
    received: u64,
    screen: Drawing,
}

struct Row {
    port: String,
    peer: String,
    state: String,
    traffic: Traffic,
}

impl Stats {
    pub(super) fn open(&mut self, port: String, connections: Vec<(SocketAddr, Traffic)>) {
        self.open.insert(port, connections);
    }

    /// Something to say of all connections.
    pub(super) fn say(&mut self, text: String) {
        self.said = Some(text);
    }

    pub(super) fn ended(&mut self, ended: Ended) {
        let state = match ended.error {
            None => {
                self.succeeded += 1;
                "closed".to_owned()
            }
            Some(error) => {
                self.failed += 1;
                error.to_string()
            }
        };
        self.sent += ended.traffic.sent;
        self.received += ended.traffic.received;
        self.ended.push_front(Row {
            port: ended.port,
            peer: ended.peer.map_or("-".to_owned(), |peer| peer.to_string()),
            state,
            traffic: ended.traffic,
        });
        self.ended.truncate(ENDED);
    }

    /// Draws all, the connections that are open first.
    pub(super) fn draw(&mut self) -> io::Result<()> {
        let mut open = Vec::new();
        for (port, connections) in &self.open {
            for (peer, traffic) in connections {
                open.push(Row {
                    port: port.clone(),
                    peer: peer.to_string(),
                    state: "open".to_owned(),
                    traffic: *traffic,
                });
            }
        }
        let live =
            |part: fn(&Traffic) -> u64| open.iter().map(|row| part(&row.traffic)).sum::<u64>();
        let (sent, received) = (live(|t| t.sent), live(|t| t.received));
        let total = format!(
            "{} open, {} closed, {} failed; {} sent, {} received",
            open.len(),
            self.succeeded,
            self.failed,
            bytes(self.sent + sent),
            bytes(self.received + received),
        );
        let headings = ["PORT", "FROM", "STATE", "SENT", "RECEIVED", "TIME"];
        let mut rows = vec![headings.map(Printable::cell).to_vec()];
        for row in open.iter().chain(&self.ended) {
            let cells = [
                &*row.port,
                &row.peer,
                &row.state,
                &bytes(row.traffic.sent),
                &bytes(row.traffic.received),
                &format!("{}s", row.traffic.duration.as_secs()),
            ];
            rows.push(cells.map(Printable::cell).to_vec());
        }
        let mut text = format!("{}{total}\n", Layout::text(&rows));
        if let Some(said) = &self.said {
            text.push_str(&format!("{}\n", Printable::line(said)));
        }
        self.screen.draw(&mut io::stdout().lock(), &text)
    }
}

/// Bytes as people read them.
fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return match unit {
                "B" => format!("{bytes} B"),
                unit => format!("{value:.1} {unit}"),
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_for_people() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (10 << 20, "10.0 MiB"),
            (3 << 30, "3.0 GiB"),
            (5 << 40, "5.0 TiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }
}
