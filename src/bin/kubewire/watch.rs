//! `kubewire watch`: prints what there is of a resource, and every change.

use clap::Args;
use kubewire::watch;

use crate::{
    changes::{Printer, Style},
    connection::Connection,
    failure::Failure,
    get::output::Output,
    set::Set as _,
    table::Extra,
};

/// Print the objects of a resource, and every change from then on
///
/// Each line begins with what happened: ADDED, MODIFIED or DELETED. It lasts through cut
/// connections and expired versions; what was deleted meanwhile is printed as deleted. It does not
/// end by itself, and an object of a name need not exist yet.
///
/// Exit codes: 1 for an error that repeating cannot help; 130 and the like for signals, as a shell
/// has them; 141 if nobody reads its output.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    kubewire watch pods\n  \
    kubewire watch deployments.apps -A -l tier=front\n  \
    kubewire watch pod/web-0 -o json\n  \
    kubewire watch nodes -o jsonpath='{.type} {.object.metadata.name}{\"\\n\"}'")]
pub(crate) struct Watch {
    /// The resource, by any of its names: pods, po, Deployment, things.example.com; or TYPE/NAME
    #[arg(value_name = "RESOURCE")]
    resource: String,
    /// Only the object of this name
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Objects of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only objects whose labels match
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// Only objects whose fields match
    #[arg(long, value_name = "SELECTOR")]
    field_selector: Option<String>,
    /// How to print a change: json for a line of JSON with its type and the object, yaml for a
    /// document of both, name, wide, jsonpath=TEMPLATE, custom-columns=HEADING:PATH,… and the
    /// other forms of get, for which .type and .object are what there is; without, a row of the
    /// table that the server makes
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<String>,
    /// Keep the managed fields in YAML
    #[arg(long)]
    show_managed_fields: bool,
    /// Leave out the headings of the table
    #[arg(long)]
    no_headers: bool,
}

impl Watch {
    pub(crate) async fn run(self, connection: &Connection) -> Result<u8, Failure> {
        let output = Output::parse(self.output.as_deref(), None, true)?;
        let client = connection.client()?;
        let (resource, name) = match (self.resource.split_once('/'), self.name) {
            (Some((resource, name)), None) => (resource, Some(name.to_owned())),
            (Some(_), Some(_)) => {
                bail!("TYPE/NAME and a name exclude each other");
            }
            (None, name) => (self.resource.as_str(), name),
        };
        let known = client.find(resource).await?;
        let namespaced = known.resource.namespaced;
        let style = Style {
            one_line: matches!(output, Output::Json),
            output,
            events: true,
            initial: true,
            managed_fields: self.show_managed_fields,
            headers: !self.no_headers,
            extra: Extra {
                namespaces: namespaced && self.all_namespaces,
                ..Extra::default()
            },
        };
        let here = (namespaced && !self.all_namespaces).then(|| client.namespace());
        let watch = client
            .watch(known.resource.clone())
            .set(here, watch::Watch::namespace)
            .set(name, watch::Watch::name)
            .set(self.selector.as_ref(), watch::Watch::labels)
            .set(self.field_selector.as_ref(), watch::Watch::fields);
        Printer::new(style, known)?.run(watch, connection).await
    }
}
