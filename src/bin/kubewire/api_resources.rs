//! `kubewire api-resources`: out come the resources of the server, as kubectl lists them.

use clap::{Args, ValueEnum};
use kubewire::request::ApiResource;

use crate::{connection::Connection, failure::Failure, printable::Printable, table};

/// List the resources of the server
///
/// Exit codes: 0; 1 for an error; 141 if nobody reads its output.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    kubewire api-resources\n  \
    kubewire api-resources --api-group apps -o wide\n  \
    kubewire api-resources --verbs list,watch --namespaced -o name")]
pub(crate) struct ApiResources {
    /// Only those of this group; empty for the core group
    #[arg(long, value_name = "GROUP")]
    api_group: Option<String>,
    /// Only those of namespaces, or with false only those of the cluster
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    namespaced: Option<bool>,
    /// Only those that can do all of these
    #[arg(long, value_name = "VERBS", value_delimiter = ',')]
    verbs: Vec<String>,
    /// Only those of all of these categories
    #[arg(long, value_name = "CATEGORIES", value_delimiter = ',')]
    categories: Vec<String>,
    /// How to print
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    output: Option<Output>,
    /// Leave out the headings
    #[arg(long)]
    no_headers: bool,
    /// In the order of names or kinds instead of groups
    #[arg(long, value_name = "ORDER", value_enum)]
    sort_by: Option<Order>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// With verbs and categories
    Wide,
    /// Names alone
    Name,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Order {
    Name,
    Kind,
}

impl ApiResources {
    pub(crate) async fn run(self, connection: &Connection) -> Result<u8, Failure> {
        let known = connection.client()?.discover().await?;
        let has = |all: &[String], wanted: &[String]| wanted.iter().all(|one| all.contains(one));
        let (group, namespaced) = (self.api_group.as_deref(), self.namespaced);
        let is_meant = |one: &&ApiResource| {
            let (of, resource) = (&*one.resource.group, &one.resource);
            let is_of = group.unwrap_or(of) == of;
            let is_there = namespaced.unwrap_or(resource.namespaced) == resource.namespaced;
            one.preferred
                && !one.verbs.is_empty()
                && is_of
                && is_there
                && has(&one.verbs, &self.verbs)
                && has(&one.categories, &self.categories)
        };
        let mut all: Vec<_> = known.resources().iter().filter(is_meant).collect();
        all.sort_by_key(|one| match (self.sort_by, &one.resource) {
            (None, resource) => (&*resource.group, &*resource.plural),
            (Some(Order::Name), resource) => (&*resource.plural, ""),
            (Some(Order::Kind), _) => (&*one.kind, ""),
        });
        if self.output == Some(Output::Name) {
            let names = all.iter().map(|one| one.resource.to_string());
            let rows: Vec<_> = names.map(|name| vec![Printable::cell(&name)]).collect();
            return Ok(table::print(&rows).map(|()| 0)?);
        }
        let shown = match self.output {
            Some(Output::Wide) => 7,
            _ => 5,
        };
        let row = |cells: [&str; 7]| cells.into_iter().take(shown).map(Printable::cell).collect();
        let headings = [
            "NAME",
            "SHORTNAMES",
            "APIVERSION",
            "NAMESPACED",
            "KIND",
            "VERBS",
            "CATEGORIES",
        ];
        let mut rows: Vec<_> = (!self.no_headers)
            .then(|| row(headings))
            .into_iter()
            .collect();
        rows.extend(all.into_iter().map(|one| {
            row([
                &one.resource.plural,
                &one.short_names.join(","),
                &one.resource.api_version(),
                &one.resource.namespaced.to_string(),
                &one.kind,
                &one.verbs.join(","),
                &one.categories.join(","),
            ])
        }));
        table::print(&rows)?;
        Ok(0)
    }
}
