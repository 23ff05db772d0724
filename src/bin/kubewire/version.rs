//! `version`: in flows the server's `/version`, out come both versions.

use std::io::{self, Write};

use bytes::Bytes;
use clap::Args;
use serde_json::Value;

use crate::{Global, Outcome};

#[derive(Args)]
pub(super) struct Version {
    /// Do not ask the server.
    #[arg(long)]
    client: bool,
}

impl Version {
    pub(super) async fn run(&self, global: &Global) -> Outcome {
        let mut out = io::stdout();
        writeln!(out, "Client Version: v{}", env!("CARGO_PKG_VERSION"))?;
        if self.client {
            return Ok(());
        }
        let request = http::Request::get("/version").body(Bytes::new())?;
        let response = global.client()?.send(request).await?;
        let status = response.status();
        let body = response.into_body().bytes(1 << 20).await?;
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        match answer["gitVersion"]
            .as_str()
            .filter(|_| status.is_success())
        {
            Some(version) => writeln!(out, "Server Version: {version}")?,
            None => {
                let said = answer["message"].as_str().unwrap_or_default();
                return Err(format!("the server answered {status} {said}")
                    .trim_end()
                    .into());
            }
        }
        Ok(())
    }
}
