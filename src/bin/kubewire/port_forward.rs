//! `kubewire port-forward`: local ports that lead to a pod.
//!
//! In flow local connections; out come forwarded ones, kubectl's lines on stdout, and on stderr
//! what goes wrong with a single connection, which ends that connection only.

use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr},
};

use clap::{Args, ValueEnum};
use kubewire::client::port_forward::{HalfClose, ListenEvent, Listener, Tunnel};
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    connection::Connection,
    failure::{Failure, note},
    signals::{Received, Signals},
};

/// Forward local ports to a pod
///
/// It goes on until it is interrupted. A connection that fails fails alone; when the way to the
/// pod is lost, the next connection finds a new one.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    kubewire port-forward web-0 8080:80\n  \
    kubewire port-forward pod/web-0 :5432 --address 127.0.0.1")]
pub(crate) struct PortForward {
    /// The pod: NAME or pod/NAME
    #[arg(value_name = "POD")]
    pod: String,
    /// LOCAL:REMOTE, REMOTE for both, or :REMOTE for any free local port
    #[arg(value_name = "[LOCAL:]REMOTE", required = true)]
    ports: Vec<Ports>,
    /// The local addresses to listen on
    #[arg(
        long,
        value_name = "ADDRESS",
        value_delimiter = ',',
        default_value = "localhost"
    )]
    address: Vec<String>,
    /// When to tell the pod that a local program has finished sending
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = When::Propagate)]
    half_close: When,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum When {
    /// At once, as TCP would
    Propagate,
    /// When the pod has finished, too: for answers that take longer than a second
    Defer,
}

/// A pair of ports; 0 is any free one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ports {
    local: u16,
    remote: u16,
}

impl std::str::FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (local, remote) = text.split_once(':').unwrap_or((text, text));
        let number = |text: &str| {
            let number = text.parse::<u16>();
            number.map_err(|_| format!("{text:?} is not a port number"))
        };
        let remote = number(remote)?;
        if remote == 0 {
            return Err("the remote port must be > 0".into());
        }
        let local = match local {
            "" => 0,
            local => number(local)?,
        };
        Ok(Self { local, remote })
    }
}

impl PortForward {
    pub(crate) async fn run(self, connection: &Connection) -> Result<u8, Failure> {
        let mut signals =
            Signals::new().map_err(|error| Failure::local("no signal handlers", &error))?;
        let name = match self.pod.split_once('/') {
            None => self.pod.as_str(),
            Some(("pod" | "pods" | "po", name)) => name,
            Some((kind, _)) => {
                let message = format!("{}: only pods can be named, not a {kind}", self.pod);
                return Err(Failure::Message(message));
            }
        };
        let client = connection.client()?;
        let pod = client.pod(client.namespace(), name);
        let tunnel = pod
            .port_forward()
            .half_close(match self.half_close {
                When::Propagate => HalfClose::Propagate,
                When::Defer => HalfClose::Defer,
            })
            .connect()
            .await?;
        tracing::info!(protocol = %tunnel.protocol().await, "connected");
        let (lines, mut printed) = mpsc::channel(64);
        let mut watchers = JoinSet::new();
        for ports in &self.ports {
            for address in &self.address {
                let listener = listen(&tunnel, address, *ports).await?;
                for local in listener.local_addrs() {
                    out(&format!("Forwarding from {local} -> {}", ports.remote))?;
                }
                watchers.spawn(watch(listener, lines.clone()));
            }
        }
        loop {
            tokio::select! {
                line = printed.recv() => {
                    if let Some(line) = line {
                        out(&line)?;
                    }
                }
                signal = signals.next() => {
                    if let Received::End(number) = signal {
                        return Err(Failure::Signal(number));
                    }
                }
            }
        }
    }
}

async fn listen(tunnel: &Tunnel, address: &str, ports: Ports) -> Result<Listener, Failure> {
    let listener = match address.parse::<IpAddr>() {
        Ok(ip) => {
            let address = SocketAddr::new(ip, ports.local);
            tunnel.listen(address, ports.remote).await
        }
        Err(_) => tunnel.listen((address, ports.local), ports.remote).await,
    };
    listener.map_err(|error| {
        let port = ports.local;
        Failure::Message(format!(
            "unable to listen on port {port} of {address}: {error}"
        ))
    })
}

/// Turns what happens at a listener into lines, on stdout those that kubectl has.
async fn watch(mut listener: Listener, lines: mpsc::Sender<String>) {
    let port = listener.local_addrs().first().map_or(0, SocketAddr::port);
    loop {
        match listener.event().await {
            ListenEvent::Accepted { .. } => {
                let line = format!("Handling connection for {port}");
                if lines.send(line).await.is_err() {
                    return;
                }
            }
            ListenEvent::Failed { peer, error } => {
                note(&format!(
                    "error: connection from {peer} to port {port}: {error}"
                ));
            }
            ListenEvent::Unreachable { error } => {
                note(&format!("the pod cannot be reached, trying again: {error}"));
            }
            _ => {}
        }
    }
}

fn out(line: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(format!("{line}\n").as_bytes());
    match written.and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Failure::BrokenPipe),
        Err(error) => Err(Failure::local("cannot write to stdout", &error)),
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_written_as_for_kubectl() {
        let ports = |local, remote| Ok(Ports { local, remote });
        assert_eq!("8080:80".parse(), ports(8080, 80));
        assert_eq!("80".parse(), ports(80, 80));
        assert_eq!(":80".parse(), ports(0, 80));
        assert_eq!("0:80".parse(), ports(0, 80));
        for wrong in ["", ":", "80:", "x:80", "80:0", "0", "65536", "1:2:3", "-1"] {
            assert!(wrong.parse::<Ports>().is_err(), "{wrong:?}");
        }
    }
}
