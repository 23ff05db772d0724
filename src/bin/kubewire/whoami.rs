//! `auth whoami`: out comes who the server takes this user for.

use clap::Args;
use serde_json::{Value, json};

use crate::{
    connection::Connection,
    failure::Failure,
    printable::Printable,
    review::{self, list, texts},
    table,
};

/// Print who the server takes this user for
///
/// Exit codes: 0; 1 for an error; 141 if nobody reads its output.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    kubewire auth whoami\n  \
    kubewire auth whoami --as jane --as-group dev")]
pub(crate) struct Whoami {}

impl Whoami {
    pub(crate) async fn run(self, connection: &Connection) -> Result<u8, Failure> {
        let client = connection.client()?;
        let (group, kind) = ("authentication.k8s.io", "SelfSubjectReview");
        let review = review::ask(&client, group, kind, json!({})).await?;
        let user = &review["status"]["userInfo"];
        let mut rows = vec![["ATTRIBUTE", "VALUE"].map(Printable::cell).to_vec()];
        let mut add = |name: &str, value: String| {
            if !value.is_empty() {
                rows.push(vec![Printable::cell(name), Printable::cell(&value)]);
            }
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let list = |value: &Value| match texts(value).collect::<Vec<_>>() {
            items if items.is_empty() => String::new(),
            items => list(&items),
        };
        add("Username", text(&user["username"]));
        add("UID", text(&user["uid"]));
        add("Groups", list(&user["groups"]));
        for (key, values) in user["extra"].as_object().into_iter().flatten() {
            add(&format!("Extra: {key}"), list(values));
        }
        if rows.len() == 1 {
            bail!("the server's answer does not say who the user is");
        }
        table::print(&rows)?;
        Ok(0)
    }
}
