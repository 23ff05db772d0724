//! `version`: in flows the server's `/version`, out come both versions.

use std::io::{self, Write};

use bytes::Bytes;
use clap::Args;
use serde_json::Value;

use crate::{
    connection::Connection,
    failure::{Failure, Local as _},
    printable::Printable,
};

/// Print the versions of this program and of the server
///
/// Exit codes: 0 if both are known; 1 if the server does not say its own.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    kubewire version\n  \
    kubewire version --client")]
pub(crate) struct Version {
    /// Do not ask the server
    #[arg(long)]
    client: bool,
}

impl Version {
    pub(crate) async fn run(self, connection: &Connection) -> Result<u8, Failure> {
        let mut out = io::stdout();
        writeln!(out, "Client Version: v{}", env!("CARGO_PKG_VERSION"))?;
        if self.client {
            return Ok(0);
        }
        let request = http::Request::get("/version").body(Bytes::new());
        let request = request.local("the request")?;
        let response = connection.client()?.send(request).await?;
        let status = response.status();
        let body = response.into_body().bytes(1 << 20).await?;
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        match answer["gitVersion"]
            .as_str()
            .filter(|_| status.is_success())
        {
            Some(version) => writeln!(out, "Server Version: {}", Printable::line(version))?,
            None => {
                let said = answer["message"].as_str().unwrap_or_default();
                let text = match status.is_success() && said.is_empty() {
                    true => "the server's answer has no gitVersion: is it an API server?".into(),
                    false => format!("the server answered {status} {said}"),
                };
                return Err(Failure::Message(text.trim_end().to_owned()));
            }
        }
        Ok(0)
    }
}
