//! What a request is about: in flow its method, path and query, out come the verb and the object.
//!
//! It is `k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`.

use std::{collections::HashMap, fmt::Display, sync::Arc};

use http::Method;
use serde_json::{Value, json};

use super::gojson::no_duration;
use crate::{
    Resource,
    server::{
        Refusal,
        upgrade::{no_number, query_pairs},
    },
    testing::{
        access::Action,
        kinds::{Kind, Kinds, discovery},
        objects::store::{self, Key},
        values::json::map,
    },
    wire::status::{Status, StatusCause, StatusDetails},
};

/// The parameters of a request; of several of one name, the first.
#[derive(Debug, Default)]
pub(crate) struct Parameters(HashMap<String, String>);

impl Parameters {
    pub(crate) fn parse(query: Option<&str>) -> Self {
        let mut parameters = HashMap::new();
        for (name, value) in query_pairs(query.unwrap_or_default()) {
            parameters.entry(name).or_insert(value);
        }
        Self(parameters)
    }

    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// What is there and not empty.
    pub(crate) fn some(&self, name: &str) -> Option<&str> {
        Some(self.get(name)).filter(|text| !text.is_empty())
    }

    /// As options in JSON.
    pub(crate) fn to_json(&self) -> Value {
        let given = self.0.iter();
        let heeded = ["dryRun", "sendInitialEvents"];
        let given =
            given.filter(|(name, value)| !value.is_empty() || heeded.contains(&name.as_str()));
        let options = given.map(|(name, value)| {
            let number = value.parse::<i64>().map(Value::from);
            let value = match &**name {
                "dryRun" => json!([value]),
                "force" | "orphanDependents" | "sendInitialEvents" => self.is(name).into(),
                name if NUMBERS.contains(&name) => number.unwrap_or_default(),
                _ => value.clone().into(),
            };
            (name.clone(), value)
        });
        options.collect()
    }

    /// As the options of a deletion.
    pub(crate) fn to_deletion(&self) -> Value {
        const HEEDED: &str = "dryRun gracePeriodSeconds orphanDependents propagationPolicy";
        let mut options = self.to_json();
        map(&mut options).retain(|name, _| HEEDED.split(' ').any(|known| known == name));
        for name in ["uid", "resourceVersion"] {
            if let Some(value) = self.some(name) {
                options["preconditions"][name] = value.into();
            }
        }
        options
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Any text but these sets a flag
    /// (`k8s.io/apimachinery/pkg/runtime/conversion.go`, `Convert_Slice_string_To_bool`).
    pub(crate) fn is(&self, name: &str) -> bool {
        let value = self.0.get(name);
        value.is_some_and(|value| !value.eq_ignore_ascii_case("false") && value != "0")
    }

    /// Refuses what the API server looks at in every request.
    pub(crate) fn check(&self, target: &Target) -> Result<(), Refusal> {
        let of = target.subresource.as_deref();
        if target.verb == "get" && self.is("export") {
            let why = "the export parameter, deprecated since v1.14, is no longer supported";
            return Err(Refusal::bad_request(why));
        }
        // `k8s.io/apiserver/pkg/endpoints/filters/request_deadline.go`; what goes on has none.
        let is_short = of.is_none() && target.verb != "watch";
        let timeout = self.some("timeout").filter(|_| is_short);
        timeout.and_then(no_duration).map_or(Ok(()), |why| {
            let front = "invalid timeout specified in the request URL";
            Err(Refusal::bad_request(format!("{front} - {why}")))
        })
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<i64>, Refusal> {
        match self.get(name) {
            "" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|error| Refusal::bad_request(no_number("ParseInt", text, &error))),
        }
    }
}

/// Parameters that are numbers.
pub(crate) const NUMBERS: [&str; 6] = [
    "gracePeriodSeconds",
    "limit",
    "limitBytes",
    "sinceSeconds",
    "tailLines",
    "timeoutSeconds",
];

/// A path of resources, before it is known whether there is such a resource.
#[derive(Debug)]
pub(crate) struct Info<'a> {
    verb: &'static str,
    group: &'a str,
    version: &'a str,
    plural: &'a str,
    namespaced: bool,
    namespace: &'a str,
    name: Option<&'a str>,
    subresource: Option<String>,
    /// What follows a subresource.
    rest: Vec<&'a str>,
    /// The selector of fields.
    only: &'a str,
}

impl<'a> Info<'a> {
    /// Reads what follows the group and the version.
    pub(crate) fn parse(
        method: &Method,
        [group, version]: [&'a str; 2],
        rest: &[&'a str],
        parameters: &'a Parameters,
    ) -> Option<Self> {
        let (is_watch, rest) = match *rest {
            ["watch", ref rest @ ..] if !rest.is_empty() => (true, rest),
            _ => (false, rest),
        };
        let (namespaced, namespace, rest) = match *rest {
            ["namespaces", namespace, "status" | "finalize"] => (false, namespace, rest),
            ["namespaces", namespace, ref rest @ ..] if !rest.is_empty() => (true, namespace, rest),
            ["namespaces", name] => (false, name, rest),
            _ => (false, "", rest),
        };
        let (plural, name, subresource, rest) = match *rest {
            [plural] => (plural, None, None, &[][..]),
            [plural, name] => (plural, Some(name), None, &[][..]),
            [plural, name, subresource, ref rest @ ..] => {
                (plural, Some(name), Some(subresource.to_owned()), rest)
            }
            [] => return None,
        };
        let verb = match (method, name) {
            (&Method::GET | &Method::HEAD, _) if is_watch => "watch",
            _ if is_watch => "",
            (&Method::GET | &Method::HEAD, Some(_)) => "get",
            (&Method::GET | &Method::HEAD, None) if parameters.is("watch") => "watch",
            (&Method::GET | &Method::HEAD, None) => "list",
            (&Method::POST, _) => "create",
            (&Method::PUT, _) => "update",
            (&Method::PATCH, _) => "patch",
            (&Method::DELETE, Some(_)) => "delete",
            (&Method::DELETE, None) => "deletecollection",
            _ => "",
        };
        Some(Self {
            verb,
            group,
            version,
            plural,
            namespaced,
            namespace,
            name,
            subresource,
            rest: rest.to_vec(),
            only: parameters.get("fieldSelector"),
        })
    }

    /// What the request needs the right to. Who selects one object by its name asks for that.
    pub(crate) fn action(&self) -> Action {
        let resource = match &self.subresource {
            None => self.plural.to_owned(),
            Some(name) => format!("{}/{name}", self.plural),
        };
        let only = self.only.split(',').find_map(|term| {
            let (field, name) = term.split_once('=')?;
            (field == "metadata.name").then(|| name.trim_start_matches('='))
        });
        let of_many = matches!(self.verb, "list" | "watch" | "deletecollection");
        let name = self.name.or(only.filter(|_| of_many)).unwrap_or_default();
        Action::new(self.verb, [self.group, &resource, self.namespace, name])
    }

    /// What the request is about; `None` if there is no such resource, or not there.
    pub(crate) fn target(self, kinds: &Kinds) -> Option<Result<Target, Refusal>> {
        let kind = kinds.find(self.group, self.version, self.plural)?;
        if kind.is("gone") {
            let what = format!("{} in {}", kind.kind, kind.resource.api_version());
            return Some(Err(not_implemented(what)));
        }
        let resource = &kind.resource;
        let all_namespaces = resource.namespaced && self.name.is_none();
        if self.namespaced != resource.namespaced && (self.namespaced || !all_namespaces) {
            return None;
        }
        let verbs = match self.subresource.as_deref() {
            Some(_) if self.verb == "watch" => return None,
            Some(name) if !kind.has(name) => {
                let name = self.name.filter(|_| kind.custom.is_some())?;
                return Some(Err(missing(resource, name)));
            }
            Some(name) => discovery::subresource(name, &kind).1,
            None if self.name.is_some() && kind.is("create") => return None,
            // What is made or deleted says in which namespace.
            None if all_namespaces && !self.namespaced => vec!["list", "watch"],
            None => kind.verbs(),
        };
        let is_proxy = self.subresource.as_deref() == Some("proxy");
        if !is_proxy && !self.rest.is_empty() {
            return None;
        }
        let is_of_one = matches!(self.verb, "get" | "update" | "patch" | "delete");
        let is_possible = verbs.contains(&self.verb)
            && match self.subresource {
                Some(_) => true,
                None => self.verb == "watch" || self.name.is_some() == is_of_one,
            };
        if !is_possible && !is_proxy {
            return Some(Err(not_allowed()));
        }
        if let Some(name @ ("." | "..")) = self.name {
            // `k8s.io/apimachinery/pkg/api/validation/path/name.go`.
            let why = format!("Name parameter invalid: {name:?}: may not be '{name}'");
            return Some(Err(Refusal::bad_request(why)));
        }
        Some(Ok(Target {
            namespace: match resource.namespaced {
                true => self.namespace.to_owned(),
                false => String::new(),
            },
            name: self.name.map(str::to_owned),
            subresource: self.subresource,
            rest: self.rest.join("/"),
            verb: self.verb,
            kind,
        }))
    }
}

/// The refusal of a method that a path does not have.
pub(crate) fn not_allowed() -> Refusal {
    let message = "the server does not allow this method on the requested resource";
    refusal((405, "MethodNotAllowed"), message, [""; 3], [])
}

pub(crate) fn other_namespace() -> Refusal {
    let why =
        "the namespace of the provided object does not match the namespace sent on the request";
    Refusal::bad_request(why)
}

/// What nothing turns into a refusal of the client's.
pub(crate) fn failed(why: impl Into<String>) -> Refusal {
    Refusal::new(Status::failure(500, "", why))
}

/// The refusal of what a cluster does and this server does not.
pub(crate) fn not_implemented(what: impl Display) -> Refusal {
    let message = format!("not implemented by the embedded server: {what}");
    Refusal::new(Status::failure(501, "NotImplemented", message))
}

#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) kind: Arc<Kind>,
    /// Empty for all, and for what has none.
    pub(crate) namespace: String,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<String>,
    pub(crate) rest: String,
    pub(crate) verb: &'static str,
}

#[derive(Debug, Clone)]
pub(crate) struct Invalid {
    pub(crate) field: String,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Invalid {
    /// The words begin with those of `k8s.io/apimachinery/pkg/util/validation/field/errors.go`,
    /// which say what kind of fault it is.
    pub(crate) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        let (field, message) = (field.into(), message.into());
        let kinds = [
            ("Required", "FieldValueRequired"),
            ("Forbidden", "FieldValueForbidden"),
            ("Unsupported", "FieldValueNotSupported"),
            ("Duplicate", "FieldValueDuplicate"),
            ("Not found", "FieldValueNotFound"),
            ("Too long", "FieldValueTooLong"),
            ("Too many", "FieldValueTooMany"),
            ("", "FieldValueInvalid"),
        ];
        let found = kinds
            .into_iter()
            .find(|(words, _)| message.starts_with(words));
        let reason = found.map_or("", |(_, reason)| reason);
        Self {
            field,
            reason,
            message,
        }
    }

    pub(crate) fn value(field: impl Into<String>, value: &str, why: &str) -> Self {
        Self::new(field, format!("Invalid value: {value}: {why}"))
    }

    pub(crate) fn required(field: impl Into<String>, why: &str) -> Self {
        let colon = if why.is_empty() { "" } else { ": " };
        Self::new(field, format!("Required value{colon}{why}"))
    }

    pub(crate) fn forbidden(field: impl Into<String>, why: &str) -> Self {
        Self::new(field, format!("Forbidden: {why}"))
    }

    /// A value that is none of those that there are, as JSON.
    pub(crate) fn unsupported<V: Display>(
        field: impl Into<String>,
        value: &str,
        known: impl IntoIterator<Item = V>,
    ) -> Self {
        let known: Vec<_> = known.into_iter().map(|value| value.to_string()).collect();
        let message = format!(
            "Unsupported value: {value}: supported values: {}",
            known.join(", ")
        );
        Self::new(field, message)
    }
}

/// A refusal with details: the kind and group, the name, and the causes with reason, message and
/// field.
pub(crate) fn refusal(
    (code, reason): (u16, &str),
    message: impl Into<String>,
    [group, kind, name]: [&str; 3],
    causes: impl IntoIterator<Item = (&'static str, String, String)>,
) -> Refusal {
    let mut status = Status::failure(code, reason, message);
    let causes = causes
        .into_iter()
        .map(|(reason, message, field)| StatusCause {
            reason: reason.to_owned(),
            message,
            field,
        });
    status.details = Some(StatusDetails {
        name: name.to_owned(),
        group: group.to_owned(),
        kind: kind.to_owned(),
        causes: causes.collect(),
        ..StatusDetails::default()
    });
    Refusal::new(status)
}

/// As Go writes several errors (`utilerrors.Aggregate`).
pub(crate) fn listed(texts: &[String]) -> String {
    match texts {
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    }
}

/// The refusal of an object with invalid fields (`k8s.io/apimachinery/pkg/api/errors/errors.go`,
/// NewInvalid). `kind` is qualified by its group.
pub(crate) fn invalid(kind: &str, name: &str, fields: Vec<Invalid>) -> Refusal {
    let mut texts = Vec::new();
    for Invalid { field, message, .. } in &fields {
        let text = format!("{field}: {message}");
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    let message = format!("{kind} {name:?} is invalid: {}", listed(&texts));
    let (kind, group) = kind.split_once('.').unwrap_or((kind, ""));
    let causes = fields
        .into_iter()
        .map(|invalid| (invalid.reason, invalid.message, invalid.field));
    refusal((422, "Invalid"), message, [group, kind, name], causes)
}

/// The refusal that names a resource's object.
pub(crate) fn refuse(
    resource: &Resource,
    name: &str,
    code: (u16, &str),
    message: impl Into<String>,
) -> Refusal {
    refusal(code, message, [&resource.group, &resource.plural, name], [])
}

/// The refusal of what admission or the rights that a role needs do not allow.
pub(crate) fn forbidden(resource: &Resource, name: &str, why: &str) -> Refusal {
    let message = format!("{resource} {name:?} is forbidden: {why}");
    refuse(resource, name, (403, "Forbidden"), message)
}

pub(crate) fn missing(resource: &Resource, name: &str) -> Refusal {
    let message = format!("{resource} {name:?} not found");
    refuse(resource, name, (404, "NotFound"), message)
}

impl Target {
    pub(crate) fn resource(&self) -> &Resource {
        &self.kind.resource
    }

    /// Empty for a collection.
    pub(crate) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    pub(crate) fn key(&self) -> Key {
        store::key(self.resource(), &self.namespace, self.name())
    }

    pub(crate) fn is(&self, subresource: &str) -> bool {
        self.subresource.as_deref() == Some(subresource)
    }

    /// The namespace that is asked about, if not all are.
    pub(crate) fn in_namespace(&self) -> Option<&str> {
        (!self.namespace.is_empty()).then_some(&self.namespace)
    }

    /// The same, of the kind that a body is of.
    pub(crate) fn of_body(&self) -> Self {
        let own = self.subresource.as_deref().and_then(Kind::of_subresource);
        Self {
            kind: own.map_or_else(|| self.kind.clone(), Arc::new),
            ..self.clone()
        }
    }

    pub(crate) fn conflict(&self, name: &str, why: &str) -> Refusal {
        // `k8s.io/apimachinery/pkg/api/errors/errors.go`, NewConflict.
        let resource = self.resource();
        let message = format!("Operation cannot be fulfilled on {resource} {name:?}: {why}");
        refuse(resource, name, (409, "Conflict"), message)
    }

    pub(crate) fn missing(&self, name: &str) -> Refusal {
        missing(self.resource(), name)
    }

    pub(crate) fn invalid(&self, name: &str, fields: Vec<Invalid>) -> Refusal {
        invalid(&self.kind.qualified(), name, fields)
    }
}
