//! Writes: in flow requests that create, replace and patch objects, out come their new states.
//!
//! As far as it goes it is `k8s.io/apiserver/pkg/registry/generic/registry/store.go`: names are
//! taken once, a resourceVersion that is given must be the current one, finalizers hold a deletion
//! up, a write that changes nothing is none, and a dry run changes nothing at all.

pub(super) mod admission;
pub(super) mod conflicts;
mod create;
pub(super) mod managed;
pub(super) mod patch;
pub(super) mod services;
pub(super) mod subresources;
pub(super) mod update;

use std::{cell::RefCell, sync::Arc};

use bytes::Bytes;
use http::{Request, Response, header::USER_AGENT};
use hyper::body::Incoming;
use serde_json::Value;

use self::managed::Manager;
use crate::{
    server::Refusal,
    testing::{
        access::{User, reviews, tokens},
        checks::{self, schema},
        kinds::types,
        objects::{self, Query, delete, store::Object},
        requests::{
            body, gojson,
            target::{self, Invalid, Parameters, Target, invalid, not_implemented},
        },
        router::{self, Body, Cluster},
        values::json::{map, some, text},
    },
};

/// Bytes of a field manager's name (`FieldManagerMaxLength`).
const MANAGER: usize = 128;

pub(super) struct Write<'a> {
    pub(super) cluster: &'a Arc<Cluster>,
    pub(super) target: &'a Target,
    /// How it is answered; its body and its answer are of the target's kind, or of its scale's.
    pub(super) query: Query,
    pub(super) user: &'a User,
    agent: String,
    pub(super) media: String,
    pub(super) body: Bytes,
    pub(super) dry: bool,
    /// That of the object, if one is made.
    pub(super) uid: String,
    warning: RefCell<Vec<String>>,
}

pub(super) async fn serve(
    cluster: &Arc<Cluster>,
    user: &User,
    target: &Target,
    request: &mut Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let body = body::read(request).await?;
    let parameters = Parameters::parse(request.uri().query());
    let options = match target.verb {
        "create" => "CreateOptions",
        "update" => "UpdateOptions",
        "patch" => "PatchOptions",
        _ => "DeleteOptions",
    };
    let media = body::media(request);
    let mut given = parameters.to_json();
    if target.verb == "patch" {
        given["apply"] = (media == body::APPLY_PATCH).into();
    }
    if parameters.get("fieldManager").contains(char::is_control) {
        return Err(not_implemented("a field manager that cannot be printed"));
    }
    checks::options("meta.WriteOptions", options, &given)?;
    let agent = request.headers().get(USER_AGENT);
    let agent = agent.and_then(|value| value.to_str().ok());
    let agent = agent.unwrap_or_default().split('/').next();
    let write = Write {
        dry: parameters.get("dryRun") == "All",
        media,
        agent: agent.unwrap_or_default().to_owned(),
        // Who cannot be answered writes nothing.
        query: Query::parse(cluster, &target.of_body(), request)?,
        cluster,
        target,
        user,
        body,
        uid: cluster.store.next_uid(),
        warning: RefCell::default(),
    };
    let answer = answer(&write);
    let accept = objects::accept(request);
    let refused = |refusal| router::refuse(cluster, accept, refusal);
    Ok(write.with_warnings(answer.unwrap_or_else(refused)))
}

fn answer(write: &Write<'_>) -> Result<Response<Body>, Refusal> {
    let target = write.target;
    match (target.verb, target.subresource.as_deref()) {
        ("create", Some("binding")) => subresources::bind(write),
        ("create", None) if target.kind.is_core("bindings") => subresources::bind(write),
        ("create", None) if target.kind.is("create") => reviews::serve(write),
        ("create", None) if target.name.is_none() => create::create(write),
        ("create", Some("eviction")) => subresources::evict(write),
        ("create", Some("token")) => tokens::serve(write),
        (
            "update" | "patch",
            None | Some("status" | "scale" | "ephemeralcontainers" | "finalize" | "approval"),
        ) => update::update(write),
        ("delete", None) => delete::one(write, &write.deletion()?),
        ("deletecollection", None) => delete::collection(write, &write.deletion()?),
        (verb, of) => {
            let of = of.map_or(String::new(), |name| format!("/{name}"));
            let what = format!("{verb} of {}{of}", target.resource().plural);
            Err(not_implemented(what))
        }
    }
}

impl Write<'_> {
    /// Who writes: as the client calls itself, or the front of its `User-Agent`
    /// (`managerOrUserAgent`).
    pub(super) fn manager(&self, operation: &'static str) -> Manager {
        let names = [self.query.get("fieldManager"), &self.agent];
        let name = names
            .into_iter()
            .find(|name| !name.is_empty())
            .unwrap_or("unknown");
        Manager {
            name: name.chars().take(MANAGER).collect(),
            operation,
            subresource: self.target.subresource.clone().unwrap_or_default(),
        }
    }

    fn deletion(&self) -> Result<delete::Options, Refusal> {
        // Who says something there says nothing in the query.
        let options = match self.body.is_empty() {
            true => self.query.parameters.to_deletion(),
            false => body::object(&self.media, &self.body, "")?,
        };
        schema::check_options(&options)?;
        checks::options("meta.DeleteOptions", "DeleteOptions", &options)?;
        if let Some(kind) = some(&options["kind"]).filter(|kind| *kind != "DeleteOptions") {
            return Err(Refusal::bad_request(format!(
                "no kind {kind:?} is registered for version {:?} in scheme \
                 \"k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27\"",
                some(&options["apiVersion"]).unwrap_or("meta.k8s.io/v1")
            )));
        }
        let options = delete::Options::parse(&options);
        let warning = options.warning(&self.target.kind);
        self.warning.borrow_mut().extend(warning.map(str::to_owned));
        Ok(options)
    }

    /// The object in the body, which is of the kind that the path names.
    pub(super) fn object(&self, api_version: &str, kind: &str) -> Result<Value, Refusal> {
        let mut object = body::object(&self.media, &self.body, kind)?;
        self.check_type(&mut object, api_version, kind)?;
        if kind == self.query.target.kind.kind {
            schema::check_types(&self.query.target.kind, &object, false)?;
        }
        Ok(object)
    }

    pub(super) fn check_type(
        &self,
        object: &mut Value,
        api_version: &str,
        kind: &str,
    ) -> Result<(), Refusal> {
        let (given, other) = (some(&object["apiVersion"]), some(&object["kind"]));
        let is_custom = self.query.target.kind.custom.is_some();
        if is_custom && other.is_none() {
            // Nothing else says what it is (`UnstructuredJSONScheme`).
            let said = String::from_utf8_lossy(&self.body);
            let why = format!("Object 'Kind' is missing in '{said}'");
            return Err(body::unrecognized(&self.body, kind, &why));
        }
        if is_custom && given.is_none() {
            let why = "the API version in the data () does not match the expected API version";
            return Err(Refusal::bad_request(format!("{why} ({api_version})")));
        }
        let (version, other) = (given.unwrap_or(api_version), other.unwrap_or(kind));
        if (version, other) != (api_version, kind) {
            if self.target.kind.custom.is_some() && version == api_version {
                let field =
                    Invalid::value("kind", &format!("{other:?}"), &format!("must be {kind}"));
                let of = format!("{other}.{}", self.target.resource().group);
                return Err(invalid(&of, text(&object["metadata"]["name"]), vec![field]));
            }
            let short = |version: &str| version.rsplit('/').next().unwrap_or_default().to_owned();
            // `k8s.io/apimachinery/pkg/runtime`: NewNotRegisteredErrForKind, Converter.Convert.
            let why = match types::name(version, other) {
                None if self.target.kind.custom.is_none() => format!(
                    "no kind {other:?} is registered for version {version:?} in scheme \
                     \"k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30\""
                ),
                Some(_) if other != kind => format!(
                    "converting ({}.{other}) to ({}.{kind}): unknown conversion",
                    short(version),
                    api_version
                        .split_once(['/', '.'])
                        .map_or("core", |(group, _)| group)
                ),
                _ => {
                    return Err(Refusal::bad_request(format!(
                        "the API version in the data ({version}) does not match the expected API \
                         version ({api_version})"
                    )));
                }
            };
            return Err(Refusal::bad_request(format!(
                "{other} in version {:?} cannot be handled as a {kind}: {why}",
                short(version)
            )));
        }
        object["apiVersion"] = api_version.into();
        object["kind"] = kind.into();
        Ok(())
    }

    pub(super) fn expected(&self) -> (String, &str) {
        (
            self.query.target.resource().api_version(),
            &*self.query.target.kind.kind,
        )
    }

    /// What strict clients want to know: fields that are there twice, or that there are not.
    pub(super) fn check_fields(&self, object: &Value) -> Result<(), Refusal> {
        let validation = match self.query.get("fieldValidation") {
            // `k8s.io/apiserver/pkg/endpoints/handlers/rest.go`, fieldValidation.
            "" => "Warn",
            validation => validation,
        };
        if validation == "Ignore" {
            return Ok(());
        }
        let is_yaml = matches!(&*self.media, body::YAML | body::APPLY_PATCH);
        let (order, twice) = match &*self.media {
            body::JSON_PATCH => Default::default(),
            _ if is_yaml => (Vec::new(), body::twice(&self.body)),
            _ => gojson::fields(&self.body),
        };
        let at = |path: &String| order.iter().rposition(|known| known == path);
        let twice = twice.into_iter().map(|found| match is_yaml {
            true => (None, found),
            false => (at(&found), format!("duplicate field {found:?}")),
        });
        let mut faults: Vec<_> = twice.collect();
        let mut unknown = schema::unknown_fields(&self.query.target.kind, object);
        let is_custom = self.query.target.kind.custom.is_some();
        if is_custom {
            unknown.sort();
        }
        // Those of custom resources are looked for last.
        faults.extend(unknown.into_iter().map(|path| {
            let last = is_custom.then_some(usize::MAX);
            (
                last.or_else(|| at(&path)),
                format!("unknown field {path:?}"),
            )
        }));
        faults.sort_by_key(|(at, _)| *at);
        let faults: Vec<_> = faults.into_iter().map(|(_, text)| text).collect();
        if faults.is_empty() {
            return Ok(());
        }
        if validation == "Warn" {
            self.warning.borrow_mut().extend(faults);
            return Ok(());
        }
        let (_, kind) = self.expected();
        let version = &self.query.target.resource().version;
        let how = match faults[0].starts_with("line ") {
            _ if self.media == body::APPLY_PATCH => {
                "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  "
                    .to_owned()
            }
            is_of_yaml => format!(
                "{kind} in version {version:?} cannot be handled as a {kind}: strict decoding error: {}",
                if is_of_yaml { "yaml: unmarshal errors:\n  " } else { "" }
            ),
        };
        Err(Refusal::bad_request(how + &faults.join(", ")))
    }

    /// Tells the client what the rules warn of, if it is new or what it asks for is.
    pub(super) fn warn(&self, before: Option<&Value>, object: &Value) {
        let kind = &self.target.kind;
        let is_same = |before: &Value| kind.is("gen") && before["spec"] == object["spec"];
        if before.is_none_or(|before| !kind.is_core("pods") && !is_same(before)) {
            let texts = checks::warnings(kind, object);
            self.warning.borrow_mut().extend(texts);
        }
    }

    pub(super) fn forget_warnings(&self) {
        self.warning.borrow_mut().clear();
    }

    fn with_warnings(&self, mut response: Response<Body>) -> Response<Body> {
        for text in self.warning.borrow_mut().drain(..) {
            // RFC 7234, section 5.5.
            if let Ok(value) = format!("299 - {text:?}").parse() {
                response.headers_mut().append("warning", value);
            }
        }
        response
    }

    pub(super) fn answer(&self, object: &Object) -> Result<Response<Body>, Refusal> {
        if !self.target.is("scale") {
            return objects::answer(&self.query, object);
        }
        let scale = subresources::scale(&self.target.kind, &object.json)?;
        objects::answer(&self.query, &Object::new(scale))
    }

    /// Checks that an object is what the path says, and completes it.
    pub(super) fn place(&self, object: &mut Value, name: &str) -> Result<(), Refusal> {
        let metadata = map(&mut object["metadata"]);
        let expected = &*self.target.namespace;
        let given = |field: &str, expected| metadata.get(field).and_then(some).unwrap_or(expected);
        let (named, namespace) = (given("name", name), given("namespace", expected));
        if named != name {
            return Err(Refusal::bad_request(format!(
                "the name of the object ({named}) does not match the name on the URL ({name})"
            )));
        }
        if namespace != expected {
            return Err(target::other_namespace());
        }
        metadata.insert("name".to_owned(), name.into());
        if !expected.is_empty() {
            metadata.insert("namespace".to_owned(), expected.into());
        }
        Ok(())
    }

    pub(super) fn check_rights(
        &self,
        before: Option<&Value>,
        after: &Value,
    ) -> Result<(), Refusal> {
        let access = &self.cluster.access;
        access.check_escalation(self.user, self.target.resource(), before, after)
    }

    /// What is wrong with an object, with what is wrong with its metadata first.
    pub(super) fn faults(&self, object: &Value, mut faults: Vec<Invalid>) -> Vec<Invalid> {
        faults.extend(checks::faults(&self.target.kind, object));
        faults.retain(|found| found.reason != checks::WARNING);
        let mut of_schema = schema::faults(&self.target.kind, object);
        if self.target.is("status") {
            // It is checked alone.
            for fault in &mut of_schema {
                fault.message = fault.message.replacen(": status.", ": ", 1);
            }
        }
        faults.extend(of_schema);
        faults.extend(subresources::fault(&self.target.kind, object));
        faults
    }
}
