//! What a client accepts: in flows an `Accept` header, out come the encoding and the form of the
//! answer.
//!
//! It is `k8s.io/apiserver/pkg/endpoints/handlers/negotiation/negotiate.go`: of the media types in
//! the order of their quality, the first that can be served wins.

use super::target::{Target, not_implemented, refusal};
use crate::{
    server::Refusal,
    wire::{status::Status, watch::Encoding},
};

/// What objects are turned into before they are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// They are sent as they are.
    Object,
    /// `PartialObjectMetadata`, in this version of `meta.k8s.io`.
    Metadata(&'static str),
    /// `PartialObjectMetadataList`, likewise.
    MetadataList(&'static str),
    /// `Table`, likewise.
    Table(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) encoding: Encoding,
    pub(crate) form: Form,
    /// Whether the JSON is written as YAML.
    pub(crate) yaml: bool,
}

const YAML: &str = "application/yaml";

/// One media type of an `Accept` header.
struct Clause<'a> {
    media: &'a str,
    quality: f32,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let mut quality = 1.0;
        let mut parameters = Vec::new();
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name.trim() {
                "q" => quality = value.trim().parse().unwrap_or(1.0),
                name => parameters.push((name, value.trim())),
            }
        }
        Self {
            media,
            quality,
            parameters,
        }
    }

    fn form(&self) -> Option<Form> {
        let get = |name| {
            let found = self.parameters.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| *value)
        };
        if get("stream").is_some_and(|stream| stream != "watch") {
            return None;
        }
        let Some(kind) = get("as") else {
            return Some(Form::Object);
        };
        let version = match (get("g"), get("v")) {
            (Some("meta.k8s.io"), Some("v1")) => "meta.k8s.io/v1",
            (Some("meta.k8s.io"), Some("v1beta1")) => "meta.k8s.io/v1beta1",
            _ => return None,
        };
        match kind {
            "PartialObjectMetadata" => Some(Form::Metadata(version)),
            "PartialObjectMetadataList" => Some(Form::MetadataList(version)),
            "Table" => Some(Form::Table(version)),
            _ => None,
        }
    }
}

/// Chooses an answer for an `Accept` header, out of encodings in the server's order of preference.
/// `message` says whether the objects have a protobuf message of their own.
pub(crate) fn negotiate(
    header: Option<&str>,
    offered: &[Encoding],
    message: bool,
) -> Option<Accepted> {
    let header = header.unwrap_or_default().trim();
    if header.is_empty() {
        return offered.first().map(|encoding| Accepted {
            encoding: *encoding,
            form: Form::Object,
            yaml: false,
        });
    }
    let mut clauses: Vec<_> = header.split(',').map(Clause::parse).collect();
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    clauses.iter().find_map(|clause| {
        let form = clause.form()?;
        let yaml = clause.media == YAML;
        let is_served = |encoding: &&Encoding| {
            let named = ["*/*", encoding.media_type()].contains(&clause.media)
                || yaml && **encoding == Encoding::Json;
            named
                && match form {
                    Form::Object => message || **encoding != Encoding::Protobuf,
                    // `endpoints/handlers/response.go`: tables have no protobuf.
                    Form::Table(_) => **encoding == Encoding::Json,
                    Form::Metadata(_) | Form::MetadataList(_) => true,
                }
        };
        let encoding = *offered.iter().find(is_served)?;
        Some(Accepted {
            encoding,
            form,
            yaml,
        })
    })
}

/// The refusal of an `Accept` header, in the words of go-restful, which knows the route's types, or
/// of those who know the forms.
pub(crate) fn not_acceptable(
    accept: Option<&str>,
    offered: &[Encoding],
    target: &Target,
) -> Refusal {
    let mut names: Vec<_> = offered.iter().map(|e| e.media_type().to_owned()).collect();
    names.insert(1, YAML.to_owned());
    let mut clauses = accept.unwrap_or_default().split(',').map(Clause::parse);
    let is_log = target.is("log");
    let is_known = |clause: Clause<'_>| {
        names.iter().any(|name| name == clause.media) || is_log && clause.media == "text/plain"
    };
    if target.kind.custom.is_some() || clauses.any(is_known) {
        return only(&names.join(", "));
    }
    if matches!(target.verb, "list" | "watch") {
        let watched = offered.iter();
        names.extend(watched.map(|encoding| format!("{};stream=watch", encoding.media_type())));
    }
    if is_log {
        names.insert(0, "text/plain".to_owned());
    }
    unavailable(&names.join(", "))
}

fn unavailable(names: &str) -> Refusal {
    let message = format!("406: Not Acceptable\n\nAvailable representations: {names}");
    refusal((406, "NotAcceptable"), message, [""; 3], [])
}

pub(crate) fn only(names: &str) -> Refusal {
    let front = "only the following media types are accepted";
    refuse(format!("{front}: {names}"))
}

/// Refuses documents, which are in JSON, to those who do not accept that, in the words of whoever
/// answers this path in a cluster.
pub(crate) fn json_only(accept: Option<&str>, path: &[&str]) -> Result<(), Refusal> {
    let header = accept.unwrap_or_default();
    let (is_version, is_group) = (path == ["version"], matches!(path, ["apis"] | ["apis", _]));
    let accepts = |types: &[&str]| {
        let mut clauses = header.split(',').map(Clause::parse);
        let is_object = |clause: &Clause<'_>| matches!(clause.form(), Some(Form::Object));
        clauses.any(|clause| types.contains(&clause.media) && is_object(&clause))
    };
    let is_any = is_group && accepts(&["application/*"]);
    if is_any || accepts(&["*/*", "application/json", ""]) || !is_version && accepts(&[YAML]) {
        return Ok(());
    }
    if !is_version && accepts(&["application/vnd.kubernetes.protobuf"]) {
        return Err(not_implemented(format!("discovery in {header}")));
    }
    let offered = match is_version {
        true => "application/json",
        false => "application/json, application/yaml, application/vnd.kubernetes.protobuf",
    };
    Err(match is_group {
        true => only(offered),
        false => unavailable(offered),
    })
}

/// Whether a client wants OpenAPI in JSON rather than in protobuf; `None` if in neither
/// (`k8s.io/kube-openapi/pkg/handler/handler.go`).
pub(crate) fn wants_json(accept: Option<&str>, version: &str) -> Option<bool> {
    let header = accept.filter(|header| !header.is_empty()).unwrap_or("*/*");
    let mut clauses: Vec<_> = header.split(',').map(Clause::parse).collect();
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    let front = format!("com.github.proto-openapi.spec.{version}");
    clauses.into_iter().find_map(|clause| {
        let (of, kind) = clause.media.split_once('/').unwrap_or((clause.media, ""));
        let is_protobuf = kind.strip_prefix(&*front);
        let is_protobuf =
            is_protobuf.is_some_and(|rest| ["@v1.0+protobuf", ".v1.0+protobuf"].contains(&rest));
        match ["application", "*"].contains(&of) {
            true if ["json", "*"].contains(&kind) => Some(true),
            true if is_protobuf => Some(false),
            _ => None,
        }
    })
}

/// A refusal of a form, in the words of `k8s.io/apiserver/pkg/endpoints/handlers/response.go`.
pub(crate) fn refuse(message: String) -> Refusal {
    Refusal::new(Status::failure(406, "NotAcceptable", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a 1.36 API server answered for pods when it was asked, over `kubectl proxy`.
    #[test]
    fn the_choice_is_the_api_server_s() {
        use Encoding::{Cbor, Json, Protobuf};
        use Form::{Metadata, Object, Table};
        let partial = "as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
        let old_table = "application/json;as=Table;v=v1beta1;g=meta.k8s.io";
        let both =
            format!("application/vnd.kubernetes.protobuf;stream=watch;{partial},application/json");
        let unknown = "application/json;as=Foo;v=v1;g=meta.k8s.io";
        let either = format!("{unknown},application/json");
        for (header, expected) in [
            ("", Some((Json, Object))),
            ("*/*", Some((Json, Object))),
            ("text/html", None),
            ("garbage", None),
            ("application/cbor", None),
            ("application/cbor,application/json", Some((Json, Object))),
            (
                "application/vnd.kubernetes.protobuf;stream=watch",
                Some((Protobuf, Object)),
            ),
            ("application/json;stream=other", None),
            ("application/json;foo=bar", Some((Json, Object))),
            (
                "application/json;q=0.1,application/vnd.kubernetes.protobuf;q=0.9",
                Some((Protobuf, Object)),
            ),
            (table, Some((Json, Table("meta.k8s.io/v1")))),
            (old_table, Some((Json, Table("meta.k8s.io/v1beta1")))),
            (
                "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io",
                None,
            ),
            (&both, Some((Protobuf, Metadata("meta.k8s.io/v1")))),
            (unknown, None),
            (&either, Some((Json, Object))),
        ] {
            let accepted = negotiate(Some(header), &[Json, Protobuf], true);
            let accepted = accepted.map(|accepted| (accepted.encoding, accepted.form));
            assert_eq!(accepted, expected, "{header:?}");
        }
        let cbor = negotiate(Some("application/cbor"), &[Json, Protobuf, Cbor], true);
        assert_eq!(cbor.map(|accepted| accepted.encoding), Some(Cbor));
        // Custom resources have no message, but metadata.
        let custom = |header| negotiate(Some(header), &[Json, Protobuf], false);
        assert_eq!(custom("application/vnd.kubernetes.protobuf"), None);
        assert_eq!(custom(&both).map(|a| a.encoding), Some(Protobuf));
    }
}
