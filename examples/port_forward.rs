//! Forwards a local port to a pod, or to one that a service or a workload selects.
//!
//! ```text
//! cargo run --example port_forward -- [-n NAMESPACE] TARGET LOCAL:REMOTE
//! cargo run --example port_forward -- svc/web 8080:http
//! ```
//!
//! `:REMOTE` takes a free local port. It goes on until it is ended.

#![allow(clippy::print_stdout)]

use kubewire::{Client, port_forward::ListenEvent};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::from_env().await?;
    let mut arguments = std::env::args().skip(1).peekable();
    let mut namespace = client.namespace().to_owned();
    if arguments.next_if(|word| word == "-n").is_some() {
        namespace = arguments.next().ok_or("-n needs a namespace")?;
    }
    let (Some(target), Some(ports)) = (arguments.next(), arguments.next()) else {
        return Err("usage: port_forward [-n NAMESPACE] TARGET LOCAL:REMOTE".into());
    };
    let (local, remote) = ports.split_once(':').unwrap_or((&ports, &ports));
    let local: u16 = if local.is_empty() { 0 } else { local.parse()? };

    let tunnel = client
        .port_forward(namespace, target.as_str())
        .connect()
        .await?;
    let mut listener = tunnel.listen(("localhost", local), remote).await?;
    for address in listener.local_addrs() {
        println!("{address} leads to {target}, port {remote}");
    }
    loop {
        match listener.event().await {
            ListenEvent::Closed { peer, traffic } => println!(
                "{peer}: {} bytes there, {} back in {:.1?}",
                traffic.sent, traffic.received, traffic.duration
            ),
            ListenEvent::Failed { peer, error, .. } => println!("{peer}: {error}"),
            ListenEvent::Unreachable { error } => println!("no way at the moment: {error}"),
            _ => {}
        }
    }
}
