//! `kubewire auth can-i`: in flow a verb and an object, out comes whether this user may.

use std::io::{self, Write as _};

use clap::Args;
use serde_json::json;

use crate::{
    connection::Connection,
    failure::{Failure, note},
    printable::Printable,
    review, rules,
};

/// `k8s.io/kubectl/pkg/cmd/auth/cani.go`, `resourceVerbs`.
const VERBS: &str = "get list watch create update patch delete deletecollection use bind \
    impersonate * approve sign escalate attest";

/// The same, `nonResourceURLVerbs`.
const PATH_VERBS: &str = "get put post head options delete patch *";

/// What no server lists, the same, `nonStandardResourceNames`.
const UNLISTED: [&str; 2] = ["users", "groups"];

/// Ask whether this user may do something
///
/// Exit codes: 0 for yes; 1 for no, and for errors.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    kubewire auth can-i create pods --subresource exec\n  \
    kubewire auth can-i get pod/web-0 -n prod --as jane\n  \
    kubewire auth can-i list deployments.apps -A\n  \
    kubewire auth can-i get /logs/\n  \
    kubewire auth can-i --list -n prod")]
pub(crate) struct CanI {
    /// What is to be done: get, list, watch, create, …; * for all
    #[arg(value_name = "VERB", required_unless_present = "list")]
    verb: Option<String>,
    /// With what: TYPE or TYPE/NAME, or a path that begins with a slash; * for all
    #[arg(value_name = "TYPE", required_unless_present = "list")]
    object: Option<String>,
    /// The name of the object
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// With this subresource: exec, log, status
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    subresource: String,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Print nothing: the exit code is the answer
    #[arg(short, long)]
    quiet: bool,
    /// List all that this user may do in the namespace
    #[arg(long, conflicts_with_all = ["verb", "subresource", "all_namespaces", "quiet"])]
    list: bool,
    /// Leave out the headings of the list
    #[arg(long)]
    no_headers: bool,
}

impl CanI {
    pub(crate) async fn run(self, connection: &Connection) -> Result<u8, Failure> {
        let client = connection.client()?;
        if self.list {
            return rules::list_all(client, !self.no_headers).await;
        }
        if self.no_headers {
            bail!("--no-headers belongs to --list");
        }
        let (Some(verb), Some(object)) = (&self.verb, &self.object) else {
            bail!("which verb, with what? Or --list");
        };
        let mut spec = json!({});
        let verbs = if object.starts_with('/') {
            if !self.subresource.is_empty() {
                bail!("a path such as {object} has no --subresource");
            }
            spec["nonResourceAttributes"] = json!({"path": object, "verb": verb});
            PATH_VERBS
        } else {
            let (kind, name) = match object.split_once('/') {
                Some((kind, name)) => (kind, Some(name.to_owned())),
                None => (&**object, None),
            };
            let mut attributes = json!({
                "verb": verb, "subresource": self.subresource,
                "name": name.or(self.name.clone()).unwrap_or_default(),
            });
            let mut namespaced = true;
            let named = |name: &str, group: &str| match group {
                "" => (format!("'{name}'"), String::new()),
                group => (format!("'{name}'"), format!(" in group '{group}'")),
            };
            let found = match kind {
                "*" => None,
                kind => Some(client.find(kind).await),
            };
            match found {
                None => (attributes["resource"], attributes["group"]) = (json!("*"), json!("*")),
                Some(Ok(known)) => {
                    let resource = known.resource;
                    attributes["resource"] = json!(resource.plural);
                    attributes["group"] = json!(resource.group);
                    namespaced = resource.namespaced;
                    if !namespaced && !self.all_namespaces {
                        let (name, group) = named(&resource.plural, &resource.group);
                        self.warn(&format!("resource {name} is not namespace scoped{group}"));
                    }
                }
                Some(Err(kubewire::Error::Caller(_))) => {
                    // A rule may speak of what there is not.
                    attributes["resource"] = json!(kind);
                    if !UNLISTED.contains(&kind) {
                        let (name, group) = kind.split_once('.').unwrap_or((kind, ""));
                        let (name, group) = named(name, group);
                        self.warn(&format!(
                            "the server doesn't have a resource type {name}{group}"
                        ));
                    }
                }
                Some(Err(error)) => return Err(error.into()),
            }
            if namespaced && !self.all_namespaces {
                attributes["namespace"] = json!(client.namespace());
            }
            spec["resourceAttributes"] = attributes;
            VERBS
        };
        if verbs.split(' ').all(|known| known != verb) {
            self.warn(&format!("verb '{verb}' is not a known verb"));
        }
        let (group, kind) = ("authorization.k8s.io", "SelfSubjectAccessReview");
        let review = review::ask(&client, group, kind, json!({"spec": spec})).await?;
        let status = &review["status"];
        let Some(allowed) = status["allowed"].as_bool() else {
            bail!("the server's answer does not say whether it is allowed");
        };
        if !self.quiet {
            let mut said = if allowed { "yes" } else { "no" }.to_owned();
            for why in ["reason", "evaluationError"] {
                let why = status[why]
                    .as_str()
                    .filter(|why| !why.is_empty() && !allowed);
                said.extend(why.map(|why| format!(" - {why}")));
            }
            writeln!(io::stdout(), "{}", Printable::line(&said))?;
        }
        Ok(u8::from(!allowed))
    }

    /// As kubectl: with an empty line behind it.
    fn warn(&self, text: &str) {
        if !self.quiet {
            note!("Warning: {text}");
            note("");
        }
    }
}
