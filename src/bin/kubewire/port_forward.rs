//! `kubewire port-forward`: local ports that lead to a pod, a service or a workload.
//!
//! In flow local connections; out come forwarded ones, kubectl's lines on stdout, and on stderr
//! what goes wrong with a single connection, which ends that connection only.

use std::{
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use kubewire::{
    Error,
    error::CallerError,
    port_forward::{ForwardPort, ForwardTarget, HalfClose, ListenEvent, Listener, Tunnel},
};
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    connection::Connection,
    duration,
    failure::{Failure, note},
    signals::{Received, Signals},
};

/// Forward local ports to a pod, a service or a workload
///
/// It goes on until it is interrupted. A connection that fails fails alone; when the way to the
/// pod is lost, the next connection finds a new one, and of a service or a workload another pod.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    kubewire port-forward web-0 8080:80\n  \
    kubewire port-forward svc/web 8080:http\n  \
    kubewire port-forward deploy/web 8080:80 8443:443\n  \
    kubewire port-forward pod/web-0 :5432 --address 127.0.0.1")]
pub(crate) struct PortForward {
    /// NAME or pod/NAME, svc/NAME, deploy/NAME and so on
    #[arg(value_name = "TYPE/NAME")]
    target: ForwardTarget,
    /// LOCAL:REMOTE, REMOTE for both, or :REMOTE for any free local port; REMOTE is a number or a
    /// name, of a service its own
    #[arg(value_name = "[LOCAL:]REMOTE", required = true)]
    ports: Vec<Ports>,
    /// The local addresses to listen on; localhost is 127.0.0.1 and ::1, or one where the other
    /// cannot be had
    #[arg(
        long,
        value_name = "ADDRESS",
        value_delimiter = ',',
        default_value = "localhost"
    )]
    address: Vec<String>,
    /// When to tell the pod that a local program has finished sending
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = HalfCloseWhen::Propagate)]
    half_close: HalfCloseWhen,
    /// The WebSockets to spread connections over, at most: with as many as there are connections,
    /// one that is read slowly holds up no other
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    websockets: usize,
    /// How long to wait for a pod that runs: 1m30s, or a number of seconds
    #[arg(long, value_name = "DURATION", default_value = "1m0s", value_parser = duration::or_seconds)]
    pod_running_timeout: Duration,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum HalfCloseWhen {
    /// At once, as TCP would
    Propagate,
    /// When the pod has finished, too: for answers that take longer than a second
    Defer,
}

/// A pair of ports.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ports {
    /// 0 is any free one; `None` the same as the other.
    local: Option<u16>,
    remote: ForwardPort,
}

impl std::str::FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (local, remote) = match text.split_once(':') {
            None => (None, text),
            Some(("", remote)) => (Some(0), remote),
            Some((local, remote)) => match local.parse() {
                Ok(local) => (Some(local), remote),
                Err(_) => return Err(format!("{local:?} is not a port number")),
            },
        };
        if remote == "0" {
            return Err("the remote port must be > 0".into());
        }
        let remote = remote
            .parse()
            .map_err(|error: CallerError| error.to_string())?;
        Ok(Self { local, remote })
    }
}

impl PortForward {
    pub(crate) async fn run(self, connection: &Connection) -> Result<u8, Failure> {
        let mut signals =
            Signals::new().map_err(|error| Failure::local("no signal handlers", &error))?;
        let client = connection.client()?;
        let namespace = client.namespace().to_owned();
        let forward = client
            .port_forward(namespace, self.target.clone())
            .websockets(self.websockets)
            .half_close(match self.half_close {
                HalfCloseWhen::Propagate => HalfClose::Propagate,
                HalfCloseWhen::Defer => HalfClose::Defer,
            });
        let tunnel = tokio::select! {
            tunnel = self.connect(&forward) => tunnel?,
            number = ended(&mut signals) => return Err(Failure::Signal(number)),
        };
        tracing::info!(protocol = %tunnel.protocol().await, "connected");
        let (lines, mut printed) = mpsc::channel(64);
        let mut watchers = JoinSet::new();
        for ports in &self.ports {
            let resolved = tunnel.resolve(ports.remote.clone()).await?;
            let local = ports.local.unwrap_or(resolved.target);
            for address in listen_addresses(&self.address) {
                let listener = listen(&tunnel, &address, local, &ports.remote).await?;
                for local in listener.local_addrs() {
                    out(&format!("Forwarding from {local} -> {}", resolved.pod))?;
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
                number = ended(&mut signals) => return Err(Failure::Signal(number)),
            }
        }
    }

    /// Connects, and waits for a pod that runs where one is chosen.
    async fn connect(
        &self,
        forward: &kubewire::port_forward::PortForward,
    ) -> Result<Tunnel, Failure> {
        let end = Instant::now().checked_add(self.pod_running_timeout);
        loop {
            match forward.connect().await {
                Err(Error::Caller(CallerError::NoPod { .. }))
                    if end.is_none_or(|end| Instant::now() < end) =>
                {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                outcome => return Ok(outcome?),
            }
        }
    }
}

/// The signal that ends it.
async fn ended(signals: &mut Signals) -> u8 {
    loop {
        if let Received::End(number) = signals.next().await {
            return number;
        }
    }
}

/// Where to listen.
#[derive(Debug, PartialEq, Eq)]
enum ListenAddress {
    /// On all that can be had, at least one.
    Addresses(Vec<IpAddr>),
    /// Where the system says.
    Name(String),
}

/// What the flags mean, each address once. `localhost` is both families, whatever the system makes
/// of the name, and one is enough (`k8s.io/client-go/tools/portforward/portforward.go`,
/// `parseAddresses` and `listenOnPort`).
fn listen_addresses(flags: &[String]) -> Vec<ListenAddress> {
    let mut seen = Vec::new();
    let mut chosen = Vec::new();
    for flag in flags {
        let mut addresses: Vec<IpAddr> = match flag.as_str() {
            "localhost" => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            text => match text.parse() {
                Ok(address) => vec![address],
                Err(_) => {
                    chosen.push(ListenAddress::Name(text.to_owned()));
                    continue;
                }
            },
        };
        addresses.retain(|address| !seen.contains(address));
        seen.extend_from_slice(&addresses);
        if !addresses.is_empty() {
            chosen.push(ListenAddress::Addresses(addresses));
        }
    }
    chosen
}

async fn listen(
    tunnel: &Tunnel,
    address: &ListenAddress,
    port: u16,
    remote: &ForwardPort,
) -> Result<Listener, Failure> {
    let remote = remote.clone();
    let (listener, name) = match address {
        ListenAddress::Addresses(addresses) => {
            let sockets: Vec<_> = addresses
                .iter()
                .map(|address| SocketAddr::new(*address, port))
                .collect();
            let names: Vec<_> = addresses.iter().map(IpAddr::to_string).collect();
            (tunnel.listen(&sockets[..], remote).await, names.join(", "))
        }
        ListenAddress::Name(name) => (tunnel.listen((&**name, port), remote).await, name.clone()),
    };
    listener.map_err(|error| {
        Failure::Message(format!(
            "unable to listen on port {port} of {name}: {error}"
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
            ListenEvent::Failed { peer, error, .. } => {
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
    fn localhost_is_both_families_and_no_address_is_taken_twice() {
        let of = |flags: &[&str]| {
            listen_addresses(
                &flags
                    .iter()
                    .map(|flag| (*flag).to_owned())
                    .collect::<Vec<_>>(),
            )
        };
        let addresses = |texts: &[&str]| {
            ListenAddress::Addresses(texts.iter().map(|text| text.parse().unwrap()).collect())
        };
        assert_eq!(of(&["localhost"]), [addresses(&["127.0.0.1", "::1"])]);
        assert_eq!(
            of(&["::1", "localhost", "127.0.0.1", "10.0.0.1"]),
            [
                addresses(&["::1"]),
                addresses(&["127.0.0.1"]),
                addresses(&["10.0.0.1"])
            ]
        );
        assert_eq!(of(&["web"]), [ListenAddress::Name("web".into())]);
    }

    #[test]
    fn ports_are_written_as_for_kubectl() {
        let ports = |local, remote: &str| {
            let remote = remote.into();
            Ok(Ports { local, remote })
        };
        assert_eq!("8080:80".parse(), ports(Some(8080), "80"));
        assert_eq!("80".parse(), ports(None, "80"));
        assert_eq!(":80".parse(), ports(Some(0), "80"));
        assert_eq!("0:80".parse(), ports(Some(0), "80"));
        assert_eq!("8080:http".parse(), ports(Some(8080), "http"));
        assert_eq!("http".parse(), ports(None, "http"));
        for wrong in [
            "", ":", "80:", "x:80", "80:0", "0", "65536", "1:2:3", "http:80",
        ] {
            assert!(wrong.parse::<Ports>().is_err(), "{wrong:?}");
        }
    }
}
