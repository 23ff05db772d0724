//! `kubewire port-forward`: local ports that lead to pods, services or workloads.
//!
//! In flow local connections; out come forwarded ones, kubectl's lines on stdout or a table of all
//! connections, and on stderr what goes wrong with a single connection, which ends that connection
//! only.

use std::{
    io::{IsTerminal as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use kubewire::{
    Client, Error, Resource,
    error::CallerError,
    port_forward::{ForwardPort, ForwardTarget, HalfClose, ListenEvent, Listener, Traffic, Tunnel},
};
use serde_json::Value;
use tokio::{sync::mpsc, task::JoinSet};

use self::stats::Stats;
use crate::{
    connection::Connection,
    duration,
    failure::{Failure, Local as _},
    signals::Signals,
};

mod stats;
#[cfg(unix)]
mod unix;

/// The number of SIGINT, with which a person ends it.
const INTERRUPT: u8 = 2;

/// Forward local ports to pods, services or workloads
///
/// It goes on until it is interrupted. A connection that fails fails alone; when the way to the
/// pod is lost, the next connection finds a new one, and of a service or a workload another pod.
///
/// Exit codes: 0 when it is interrupted (SIGINT); 1 if it cannot begin; 128 and a signal's number
/// for another signal; 141 if nobody reads its output.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    kubewire port-forward web-0 8080:80\n  \
    kubewire port-forward svc/web 8080:http\n  \
    kubewire port-forward deploy/web 8080:80 8443:443 --stats\n  \
    kubewire port-forward svc/web 8080:80 svc/db 5432\n  \
    kubewire port-forward pod/web-0 :5432 --address 127.0.0.1\n  \
    kubewire port-forward svc/db 5432 --address unix:/tmp/.s.PGSQL.5432")]
pub(crate) struct PortForward {
    /// NAME or pod/NAME, svc/NAME, deploy/NAME and so on, then its ports: LOCAL:REMOTE, REMOTE for
    /// both, or :REMOTE for any free local port, where REMOTE is a number or a name, of a service
    /// its own; then more of them, as TYPE/NAME, each with its ports
    #[arg(value_name = "TYPE/NAME [LOCAL:]REMOTE", required = true)]
    targets: Vec<String>,
    /// The local addresses to listen on; localhost is 127.0.0.1 and ::1, or one where the other
    /// cannot be had; unix:PATH is a socket of that path, for a single port, where a connection that
    /// breaks looks like one that has ended: Unix sockets know no reset
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
    /// On a terminal, a table of all connections and their bytes instead of lines
    #[arg(long)]
    stats: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum HalfCloseWhen {
    /// At once, as TCP would
    Propagate,
    /// When the pod has finished, too: for answers that take longer than a second
    Defer,
}

struct Forward {
    target: ForwardTarget,
    ports: Vec<Ports>,
}

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
            bail!("the remote port must be > 0");
        }
        let remote = remote
            .parse()
            .map_err(|error: CallerError| error.to_string())?;
        Ok(Self { local, remote })
    }
}

/// What the arguments mean: targets, each with its ports.
fn forwards(arguments: &[String]) -> Result<Vec<Forward>, String> {
    let mut all: Vec<Forward> = Vec::new();
    for argument in arguments {
        match all.last_mut() {
            Some(last) if !argument.contains('/') => last.ports.push(argument.parse()?),
            _ => {
                let target = argument.parse::<ForwardTarget>();
                all.push(Forward {
                    target: target.map_err(|error| error.to_string())?,
                    ports: Vec::new(),
                });
            }
        }
    }
    match all.iter().find(|forward| forward.ports.is_empty()) {
        None => Ok(all),
        Some(Forward { target, .. }) => Err(format!(
            "which ports of {target}? Name them behind it: [LOCAL:]REMOTE"
        )),
    }
}

/// What happens at the listeners; a port is where local programs connect to.
enum News {
    Accepted(String),
    Ended(Ended),
    Unreachable(Error),
    Open(String, Vec<(SocketAddr, Traffic)>),
}

struct Ended {
    port: String,
    peer: Option<SocketAddr>,
    traffic: Traffic,
    error: Option<Error>,
}

impl PortForward {
    pub(crate) async fn run(self, connection: &Connection) -> Result<u8, Failure> {
        let mut signals = Signals::new().local("no signal handlers")?;
        let forwards = forwards(&self.targets)?;
        let client = connection.client()?;
        let (news, mut happened) = mpsc::channel(64);
        let mut stats = (self.stats && std::io::stdout().is_terminal()).then(Stats::default);
        let mut watchers = JoinSet::new();
        tokio::select! {
            begun = self.begin(&client, &forwards, &news, stats.is_some(), &mut watchers) => begun?,
            number = signals.end() => return how(number),
        }
        let mut redraw = tokio::time::interval(stats::PERIOD);
        loop {
            tokio::select! {
                Some(news) = happened.recv() => tell(news, stats.as_mut())?,
                _ = redraw.tick(), if stats.is_some() => if let Some(stats) = &mut stats {
                    stats.draw()?;
                },
                number = signals.end() => return how(number),
            }
        }
    }

    /// Listens on all ports.
    async fn begin(
        &self,
        client: &Client,
        forwards: &[Forward],
        news: &mpsc::Sender<News>,
        count: bool,
        watchers: &mut JoinSet<()>,
    ) -> Result<(), Failure> {
        let addresses = listen_addresses(&self.address);
        let ports: usize = forwards.iter().map(|forward| forward.ports.len()).sum();
        let is_path = |address: &ListenAddress| matches!(address, ListenAddress::Path(_));
        if addresses.iter().any(is_path) && ports > 1 {
            bail!("a unix: address is for a single port, and {ports} are named");
        }
        for Forward { target, ports } in forwards {
            let forward = client
                .port_forward(client.namespace(), target.clone())
                .websockets(self.websockets)
                .half_close(match self.half_close {
                    HalfCloseWhen::Propagate => HalfClose::Propagate,
                    HalfCloseWhen::Defer => HalfClose::Defer,
                });
            if let ForwardTarget::Pod(name) = target {
                is_running(client, name).await?;
            }
            let tunnel = self.connect(&forward).await?;
            tracing::info!(protocol = %tunnel.protocol().await, "connected");
            for ports in ports {
                let resolved = tunnel.resolve(ports.remote.clone()).await?;
                let local = ports.local.unwrap_or(resolved.target);
                for address in &addresses {
                    if let ListenAddress::Path(path) = address {
                        #[cfg(not(unix))]
                        bail!("unix:{path}: this system has no Unix sockets");
                        #[cfg(unix)]
                        {
                            let socket = crate::unix_socket::UnixSocket::bind(path)?;
                            let (tunnel, remote) = (tunnel.clone(), ports.remote.clone());
                            watchers.spawn(unix::watch(socket, tunnel, remote, news.clone()));
                            out(&format!("Forwarding from unix:{path} -> {}", resolved.pod))?;
                            continue;
                        }
                    }
                    let listener = listen(&tunnel, address, local, &ports.remote).await?;
                    for local in listener.local_addrs() {
                        out(&format!("Forwarding from {local} -> {}", resolved.pod))?;
                    }
                    watchers.spawn(watch(listener, news.clone(), count));
                }
            }
        }
        Ok(())
    }

    /// Connects, and waits for a pod that runs where one is chosen.
    async fn connect(
        &self,
        forward: &kubewire::port_forward::PortForward,
    ) -> Result<Tunnel, Failure> {
        let end = Instant::now().checked_add(self.pod_running_timeout);
        let mut told = false;
        loop {
            match forward.connect().await {
                Err(error @ Error::Caller(CallerError::NoPod { .. }))
                    if end.is_none_or(|end| Instant::now() < end) =>
                {
                    if !std::mem::replace(&mut told, true) {
                        note!("{error}; waiting for one");
                    }
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                outcome => return Ok(outcome?),
            }
        }
    }
}

/// Refuses a pod that does not run, as kubectl does. A kubelet takes connections to one that waits
/// for its containers, and each is refused.
async fn is_running(client: &Client, name: &str) -> Result<(), Failure> {
    let pods = client.request(Resource::namespaced("", "v1", "pods"));
    // Who may forward may not be allowed to look; then the server says what is wrong.
    let pod: Value = match pods.namespace(client.namespace()).get(name).await {
        Ok(pod) => pod,
        Err(_) => return Ok(()),
    };
    match pod["status"]["phase"].as_str() {
        None | Some("Running") => Ok(()),
        Some(phase) => {
            bail!("unable to forward port because pod is not running. Current status={phase}")
        }
    }
}

/// How it ends with a signal: one that a person sends is how it is meant to end.
fn how(number: u8) -> Result<u8, Failure> {
    match number {
        INTERRUPT => Ok(0),
        number => Err(Failure::Signal(number)),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum ListenAddress {
    /// On all that can be had, at least one.
    Addresses(Vec<IpAddr>),
    Name(String),
    Path(String),
}

/// What the flags mean, each address once. `localhost` is both families, whatever the system makes
/// of the name, and one is enough (`k8s.io/client-go/tools/portforward/portforward.go`,
/// `parseAddresses` and `listenOnPort`).
fn listen_addresses(flags: &[String]) -> Vec<ListenAddress> {
    let mut seen = Vec::new();
    let mut chosen = Vec::new();
    for flag in flags {
        if let Some(path) = flag.strip_prefix("unix:") {
            chosen.push(ListenAddress::Path(path.to_owned()));
            continue;
        }
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
        ListenAddress::Name(name) | ListenAddress::Path(name) => {
            (tunnel.listen((&**name, port), remote).await, name.clone())
        }
    };
    listener.map_err(|error| format!("unable to listen on port {port} of {name}: {error}").into())
}

async fn watch(mut listener: Listener, news: mpsc::Sender<News>, count: bool) {
    let port = listener.local_addrs().first().map_or(0, SocketAddr::port);
    let mut counted = tokio::time::interval(stats::PERIOD);
    loop {
        let port = port.to_string();
        let told = tokio::select! {
            event = listener.event() => match event {
                ListenEvent::Accepted { .. } => News::Accepted(port),
                ListenEvent::Closed { peer, traffic } => {
                    News::Ended(Ended { port, peer: Some(peer), traffic, error: None })
                }
                ListenEvent::Failed { peer, error, traffic } => {
                    News::Ended(Ended { port, peer: Some(peer), traffic, error: Some(error) })
                }
                ListenEvent::Unreachable { error } => News::Unreachable(error),
                _ => continue,
            },
            _ = counted.tick(), if count => {
                News::Open(port, listener.connections())
            }
        };
        if news.send(told).await.is_err() {
            return;
        }
    }
}

/// Tells news: in lines, on stdout those that kubectl has, or in the table.
fn tell(news: News, stats: Option<&mut Stats>) -> Result<(), Failure> {
    match (news, stats) {
        (News::Open(port, connections), Some(stats)) => stats.open(port, connections),
        (News::Ended(ended), Some(stats)) => stats.ended(ended),
        (News::Unreachable(error), stats) => {
            let text = format!("the pod cannot be reached, trying again: {error}");
            match stats {
                Some(stats) => stats.say(text),
                None => note!("{text}"),
            }
        }
        (News::Accepted(_), Some(_)) | (News::Open(..), None) => {}
        (News::Accepted(port), None) => out(&format!("Handling connection for {port}"))?,
        (News::Ended(ended), None) => {
            let Ended { port, peer, .. } = ended;
            let from = peer.map_or_else(String::new, |peer| format!(" from {peer}"));
            if let Some(error) = ended.error {
                note!("error: connection{from} to port {port}: {error}");
            }
        }
    }
    Ok(())
}

fn out(line: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    let written = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    written.map_err(|error| Failure::stream("cannot write to stdout", &error))
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
        assert_eq!(of(&["unix:/x:y"]), [ListenAddress::Path("/x:y".into())]);
    }

    #[test]
    fn targets_are_followed_by_their_ports() {
        let of = |arguments: &[&str]| {
            let arguments: Vec<_> = arguments.iter().map(|a| (*a).to_owned()).collect();
            let all = forwards(&arguments)?;
            let one = |f: Forward| (f.target.to_string(), f.ports.len());
            Ok::<_, String>(all.into_iter().map(one).collect::<Vec<_>>())
        };
        let one = |name: &str, ports| (name.to_owned(), ports);
        assert_eq!(of(&["web", "80", "8443:443"]), Ok(vec![one("pod/web", 2)]));
        assert_eq!(
            of(&["svc/a", "80", "deploy/b", ":http", "1:2"]).map(|all| all.len()),
            Ok(2)
        );
        for wrong in [
            &["web"][..],
            &["svc/a", "80", "svc/b"],
            &["web", "x:80"],
            &["node/x", "1"],
        ] {
            assert!(of(wrong).is_err(), "{wrong:?}");
        }
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
