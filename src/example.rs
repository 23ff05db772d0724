//! What the documentation's examples run on: in flow a pod and an example, out comes that it ran.

use tokio::io::AsyncWriteExt as _;

use crate::{
    AnyWebSocket, Client, Role,
    client::Child,
    server::Process,
    session::{Subprotocol, remote_command::Streams},
    testing::{ApiServer, PodBuilder},
};

type Ran = Result<(), Box<dyn std::error::Error>>;

fn run(example: impl Future<Output = Ran>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().expect("a runtime");
    runtime.block_on(example).expect("an example that runs");
}

/// Runs an example against a server with the pod `default/web-0`.
///
/// # Panics
///
/// If the example fails.
#[doc(hidden)]
pub fn example(
    pod: impl FnOnce(PodBuilder) -> PodBuilder,
    example: impl AsyncFnOnce(Client) -> Ran,
) {
    run(async {
        let server = ApiServer::builder().pod("default", "web-0", pod);
        let server = server.start().await?;
        example(Client::new(&server.config())?).await
    });
}

/// Runs an example with both ends of a session in memory.
///
/// # Panics
///
/// If the example fails.
#[doc(hidden)]
pub fn example_session(example: impl AsyncFnOnce(Child, Process) -> Ran) {
    run(async {
        let streams = Streams {
            stdin: true,
            stdout: true,
            ..Streams::default()
        };
        let (near, far) = tokio::io::duplex(1 << 16);
        let near = AnyWebSocket::from_io(near, Role::Client, Default::default());
        let far = AnyWebSocket::from_io(far, Role::Server, Default::default());
        let child = Child::over(near, Subprotocol::V5, streams).spawn();
        example(child, Process::over(far, Subprotocol::V5, streams)).await
    });
}

/// A port that says `hello` to who connects.
///
/// # Errors
///
/// If no port can be had.
#[doc(hidden)]
pub async fn example_port() -> std::io::Result<u16> {
    let web = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let port = web.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = web.accept().await {
            let _ = socket.write_all(b"hello").await;
        }
    });
    Ok(port)
}
