//! Opens a connection to a port of a pod and speaks HTTP over it.
//!
//!     cargo run --example port_forward -- NAMESPACE POD PORT

#![allow(clippy::print_stdout)]

use kubewire::Client;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(namespace), Some(pod), Some(port)) =
        (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err("usage: port_forward NAMESPACE POD PORT".into());
    };
    let client = Client::from_env().await?;
    let tunnel = client.pod(namespace, pod).port_forward().connect().await?;
    let mut stream = tunnel.open(port.parse()?).await?;
    stream
        .write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    println!("{answer}");
    Ok(())
}
