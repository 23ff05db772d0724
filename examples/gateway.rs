//! A gateway: it knows its users by a token of its own, opens what they ask with its own
//! credentials, joins the two, and writes a line for each.
//!
//! ```text
//! GATEWAY_TOKEN=secret cargo run --example gateway -- [ADDRESS]
//! ```
//!
//! It speaks HTTP without TLS: for more than loopback, put TLS before it. kubectl wants that too, as
//! it sends a token over nothing else: `kubectl --server https://... --token secret exec web-0 -- date`
//! and `port-forward` work.

#![allow(clippy::print_stdout)]

use axum::{
    Router,
    body::Body,
    extract::{Path, Request, State},
    http::{Method, header::AUTHORIZATION},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::any,
};
use kubewire::{
    Client,
    port_forward::ForwardProtocol,
    server::{PortForwardRequest, Refusal, RemoteCommandRequest, SUBPROTOCOLS},
    wire::status::Status,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let token = format!("Bearer {}", std::env::var("GATEWAY_TOKEN")?);
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:0".into());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("http://{}", listener.local_addr()?);
    let pods = "/api/v1/namespaces/{namespace}/pods/{pod}";
    let router = Router::new()
        .route(&format!("{pods}/exec"), any(exec))
        .route(&format!("{pods}/portforward"), any(forward))
        .route(pods, any(read))
        .route("/api", any(read)) // what is served, which kubectl asks first
        .route("/api/v1", any(read))
        .route("/apis", any(read))
        .layer(from_fn_with_state(token, known))
        .with_state(Client::from_env().await?);
    Ok(axum::serve(listener, router).await?)
}

struct No(Refusal);

impl<E: Into<Refusal>> From<E> for No {
    fn from(refusal: E) -> Self {
        Self(refusal.into())
    }
}

impl IntoResponse for No {
    fn into_response(self) -> Response {
        self.0.into_response().map(Body::new)
    }
}

fn no(code: u16, reason: &str) -> No {
    Refusal::new(Status::failure(code, reason, "the gateway says no")).into()
}

/// A program with secrets to lose compares them in constant time, or knows them by hash.
async fn known(State(token): State<String>, asked: Request, next: Next) -> Result<Response, No> {
    match asked.headers().get(AUTHORIZATION) {
        Some(given) if *given == token => Ok(next.run(asked).await),
        _ => Err(no(401, "Unauthorized")),
    }
}

type Pod = Path<(String, String)>;

async fn exec(client: State<Client>, pod: Pod, mut asked: Request) -> Result<Response, No> {
    let asked = RemoteCommandRequest::parse(&mut asked)?;
    let command = format!("exec {}/{} {:?}", pod.0.0, pod.0.1, asked.command);
    let child = asked.exec(&client.pod(&pod.0.0, &pod.0.1)).spawn().await?;
    let (response, opening) = asked.accept(&SUBPROTOCOLS)?;
    tokio::spawn(async move {
        let spliced = opening.await?.splice(child).await;
        println!("{command}: {:?}, {} bytes", spliced.status, spliced.stdout);
        Ok::<_, kubewire::Error>(())
    });
    Ok(response.map(Body::new))
}

async fn forward(client: State<Client>, pod: Pod, mut asked: Request) -> Result<Response, No> {
    let asked = PortForwardRequest::parse(&mut asked)?;
    let tunnel = client
        .pod(&pod.0.0, &pod.0.1)
        .port_forward()
        .connect()
        .await?;
    let (response, opening) = asked.accept(&[ForwardProtocol::Spdy])?;
    let report = move |one| println!("forward {}/{} {one:?}", pod.0.0, pod.0.1);
    tokio::spawn(async move {
        opening.await?.splice(tunnel).each(report).await;
        Ok::<_, kubewire::Error>(())
    });
    Ok(response.map(Body::new))
}

/// Only the path goes on: no header of the user, least of all those that say who it is.
async fn read(State(client): State<Client>, asked: Request) -> Result<Response, No> {
    if asked.method() != Method::GET {
        return Err(no(405, "MethodNotAllowed"));
    }
    let path = asked
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str());
    let request = axum::http::Request::get(path).body(Default::default());
    let answer = client.send(request.expect("it was a path")).await?;
    Ok(answer.map(Body::new))
}
