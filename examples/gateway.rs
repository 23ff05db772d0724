//! A gateway: it knows its users by a token of its own, opens what they ask with its own
//! credentials, joins the two, and writes a line for each.
//!
//! ```text
//! GATEWAY_TOKEN=secret cargo run --example gateway -- [ADDRESS]
//! ```
//!
//! It speaks HTTP without TLS: for more than loopback, put TLS before it. kubectl wants that too, as
//! it sends a token over nothing else: `kubectl --server https://... --token secret exec web-0 -- date`,
//! `attach` and `port-forward` work.

#![allow(clippy::print_stdout)]

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::{Next, from_fn_with_state};
use axum::{Router, body::Body, response::Response, routing::any};
use kubewire::{Client, gateway, server::Refusal, wire::status::Status};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let token = format!("Bearer {}", std::env::var("GATEWAY_TOKEN")?);
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:0".into());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("http://{}", listener.local_addr()?);
    let pods = "/api/v1/namespaces/{namespace}/pods/{pod}";
    let router = Router::new()
        .route(&format!("{pods}/{{subresource}}"), any(join))
        .route(pods, any(read))
        .route("/api", any(read)) // what is served, which kubectl asks first
        .route("/api/v1", any(read))
        .route("/apis", any(read))
        .layer(from_fn_with_state(token, known))
        .with_state(Client::from_env().await?);
    Ok(axum::serve(listener, router).await?)
}

/// A program with secrets to lose compares them in constant time, or knows them by hash.
async fn known(token: State<String>, asked: Request, next: Next) -> Result<Response, Response> {
    match asked.headers().get(AUTHORIZATION) {
        Some(given) if *given == *token => Ok(next.run(asked).await),
        _ => Err(Refusal::new(Status::failure(401, "Unauthorized", "who are you?")).into()),
    }
}

async fn join(client: State<Client>, mut asked: Request) -> Result<Response, Response> {
    let asked = gateway::PodRequest::parse(&mut asked)?;
    let line = asked.to_string();
    let (response, session) = asked.join(&client).await?;
    tokio::spawn(async move { println!("{line}: {:?}", session.await) });
    Ok(response)
}

async fn read(client: State<Client>, asked: Request) -> Result<Response, Response> {
    Ok(gateway::read(&client, asked).await?.map(Body::new))
}
