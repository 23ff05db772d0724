use crate::Result;

// [serve]
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use kubewire::{server, wire::status::Status};
use tokio::io::AsyncWriteExt as _;

/// Answers every exec with a greeting.
fn greet<B>(mut request: Request<B>) -> Response<Full<Bytes>> {
    let accepted = server::RemoteCommandRequest::parse(&mut request)
        .and_then(|request| request.accept(&server::SUBPROTOCOLS));
    let (response, opening) = match accepted {
        Ok(accepted) => accepted,
        Err(refusal) => return refusal.into_response(),
    };
    tokio::spawn(async move {
        let mut process = opening.await?;
        if let Some(mut stdout) = process.stdout.take() {
            stdout.write_all(b"hello\n").await?;
        }
        process.exit(Status::success()).await?;
        Ok::<_, std::io::Error>(())
    });
    response
}
// [end]

#[tokio::test]
async fn greeting() -> Result {
    use hyper_util::rt::{TokioExecutor, TokioIo};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move {
        let service = hyper::service::service_fn(|request| async move {
            Ok::<_, std::convert::Infallible>(greet(request))
        });
        while let Ok((socket, _)) = listener.accept().await {
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            tokio::spawn(async move {
                let io = TokioIo::new(socket);
                server.serve_connection_with_upgrades(io, service).await
            });
        }
    });
    // [ask]
    let client = kubewire::Client::from_url(&url)?;
    let output = client
        .pod("default", "any")
        .exec(["anything"])
        .output()
        .await?;
    assert_eq!(output.stdout, b"hello\n");
    // [end]
    Ok(())
}
