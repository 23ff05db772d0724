//! Updates: in flow what clients make of objects, by replacing or patching them, out come the
//! objects as they are stored, with the server's part in them.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{
    Write, admission, conflicts,
    managed::{self, Manager},
    patch, services, subresources,
};
use crate::{
    server::Refusal,
    testing::{
        access,
        checks::{self, schema, validation},
        kinds::{Kind, place::Place, rules, types},
        objects::{
            controllers, delete,
            store::{Next, Object},
            views,
        },
        pods::{kubelet, logs},
        requests::{
            body,
            target::{Invalid, Target, failed, invalid, not_implemented, refusal},
        },
        router::Body,
        values::json::{at, at_mut, make_whole, map, set, some, text},
    },
};

/// What a request makes of an object.
enum Change {
    Replace(Value),
    Merge,
    Strategic,
    Json,
    Apply { object: Value, force: bool },
}

impl Change {
    fn of(write: &Write<'_>) -> Result<Self, Refusal> {
        let (api_version, kind) = write.expected();
        if write.target.verb == "update" {
            return Ok(Self::Replace(write.object(&api_version, kind)?));
        }
        match &*write.media {
            body::JSON_PATCH => Ok(Self::Json),
            body::MERGE_PATCH => Ok(Self::Merge),
            body::STRATEGIC_PATCH if write.target.kind.custom.is_none() => Ok(Self::Strategic),
            body::APPLY_PATCH => {
                let mut object = body::applied(&write.body)?;
                if object["metadata"]["managedFields"].is_array() {
                    let why = "metadata.managedFields must be nil";
                    return Err(Refusal::bad_request(why));
                }
                let (version, other) = (text(&object["apiVersion"]), text(&object["kind"]));
                let is_custom = write.target.kind.custom.is_some();
                if other != kind
                    || version.is_empty()
                    || !is_custom && types::name(version, other).is_none()
                {
                    let slash = if version.contains('/') { "" } else { "/" };
                    let why = format!("invalid object type: {slash}{version}, Kind={other}");
                    return Err(Refusal::bad_request(why));
                }
                write.check_type(&mut object, &api_version, kind)?;
                conflicts::check(&write.target.kind, &object)?;
                // What belongs to the other resource is passed over (`GetResetFields`).
                match write.target.subresource.as_deref() {
                    None if write.target.kind.has("status") => {
                        set(&mut object, "status", &Value::Null);
                    }
                    Some("status") => map(&mut object).retain(|name, _| {
                        ["apiVersion", "kind", "metadata", "status"].contains(&name.as_str())
                    }),
                    Some("scale") => {
                        return Err(not_implemented("server-side apply of a scale"));
                    }
                    _ => {}
                }
                let force = write.query.is("force");
                Ok(Self::Apply { object, force })
            }
            body::STRATEGIC_PATCH => Err(body::unsupported(&[
                body::JSON_PATCH,
                body::MERGE_PATCH,
                body::APPLY_PATCH,
            ])),
            _ => {
                // go-restful's words, which knows the route's types.
                let message = "415: Unsupported Media Type";
                Err(refusal((415, "UnsupportedMediaType"), message, [""; 3], []))
            }
        }
    }

    /// The object as it is to be, before the server's part in it.
    fn of_object(
        &self,
        write: &Write<'_>,
        before: Option<&Value>,
        manager: &Manager,
    ) -> Result<Value, Refusal> {
        let mut after = match (self, before) {
            (Self::Replace(object), _) => return Ok(object.clone()),
            (Self::Apply { object, force }, before) => {
                let kind = &write.target.kind;
                return managed::apply(kind, manager, before, object, *force, logs::now());
            }
            (_, Some(before)) => before.clone(),
            (_, None) => return Err(write.target.missing(write.target.name())),
        };
        let (api_version, kind) = write.expected();
        after["apiVersion"] = (&*api_version).into();
        // The version is a condition only where the patch says so.
        let version = after["metadata"]["resourceVersion"].clone();
        set(&mut after["metadata"], "resourceVersion", &Value::Null);
        match self {
            Self::Merge => patch::merge(&mut after, &body::patch(&write.media, &write.body)?),
            Self::Strategic => {
                let patch = body::patch(&write.media, &write.body)?;
                patch::strategic(Place::of(&write.target.kind), &mut after, &patch)?;
            }
            Self::Json => {
                // A test may ask for it.
                after["metadata"]["resourceVersion"] = version;
                patch::json_patch(&mut after, &write.body)?;
            }
            Self::Replace(_) | Self::Apply { .. } => {}
        }
        if let Self::Strategic = self {
            // It is read into the type, whatever it calls itself.
            (after["apiVersion"], after["kind"]) = (api_version.into(), kind.into());
            return Ok(after);
        }
        write
            .check_type(&mut after, &api_version, kind)
            .map_err(|refusal| match refusal.code().as_u16() {
                422 => refusal,
                _ => misread(&refusal, &after.to_string()),
            })?;
        Ok(after)
    }
}

/// Answers a replacement or a patch.
pub(super) fn update(write: &Write<'_>) -> Result<Response<Body>, Refusal> {
    let target = write.target;
    let name = target.name();
    let mut change = Change::of(write)?;
    let mut is_nameless = false;
    if let Change::Replace(object) | Change::Apply { object, .. } = &mut change {
        is_nameless = some(&object["metadata"]["name"]).is_none();
        write.place(object, name)?;
    }
    if is_nameless && matches!(change, Change::Replace(_)) {
        return Err(nameless(name));
    }
    let manager = write.manager(match change {
        Change::Apply { .. } => "Apply",
        _ => "Update",
    });
    let creates = target.subresource.is_none()
        && match change {
            Change::Replace(_) => target.kind.is("upsert"),
            Change::Apply { .. } => true,
            _ => false,
        };
    let key = target.key();
    let mut old = None;
    let mut last = None;
    if creates && write.cluster.store.get(&key).is_none() {
        write.check_namespace(name)?;
    }
    let store = &write.cluster.store;
    let mut attempt = |dry| {
        store.write(key.clone(), dry, |before| {
            views::change(&target.kind, before, |before| {
                (old, last) = (before.cloned(), None);
                write.forget_warnings();
                let Some(before) = before else {
                    if !creates {
                        return Err(target.missing(name));
                    }
                    if is_nameless {
                        return Err(nameless(name));
                    }
                    let mut after = change.of_object(write, None, &manager)?;
                    write.place(&mut after, name)?;
                    let managed = after["metadata"]["managedFields"].clone();
                    let mut after = write.complete(after, &manager)?;
                    if !managed.is_null() {
                        after["metadata"]["managedFields"] = managed;
                    }
                    return Ok(Next::Put(Object::new(after)));
                };
                let next = changed(write, &change, before, &manager)?;
                let Next::Put(after) = &next else {
                    return Ok(next);
                };
                if !delete::is_over(&target.kind, &after.json) {
                    return Ok(next);
                }
                // It goes, and the answer is what it would have been.
                last = Some(after.clone());
                Ok(Next::Delete)
            })
        })
    };
    if target.resource().group == access::GROUP {
        let before = store.get(&key);
        let after = attempt(true)?.ok_or_else(|| target.missing(name))?;
        write.check_rights(before.as_ref().map(|before| &before.json), &after.json)?;
    }
    let written = attempt(write.dry)?;
    let written = written.ok_or_else(|| target.missing(name))?;
    let is_deleted = last.is_some();
    if !write.dry {
        if target.is("ephemeralcontainers") {
            kubelet::debug(write.cluster, target, &written.json)?;
        }
        match &old {
            Some(_) if is_deleted => delete::gone(write.cluster, &target.kind, &written.json),
            old => {
                let old = old.as_ref().map(|old| &old.json);
                controllers::after(write.cluster, &target.kind, old, &written.json);
            }
        }
    }
    let mut response = write.answer(last.as_ref().unwrap_or(&written))?;
    if old.is_none() {
        *response.status_mut() = StatusCode::CREATED;
    }
    Ok(response)
}

fn nameless(name: &str) -> Refusal {
    let why = "was undeterminable: name must be provided";
    Refusal::bad_request(format!(
        "the name of the object ({name} based on URL) {why}"
    ))
}

/// What an update makes of an object.
fn changed(
    write: &Write<'_>,
    change: &Change,
    before: &Object,
    manager: &Manager,
) -> Result<Next, Refusal> {
    let (target, name, kind) = (write.target, write.target.name(), &write.target.kind);
    let old = &before.json;
    let mut after = match target.is("scale") {
        false => change.of_object(write, Some(old), manager)?,
        true => {
            let scale = subresources::scale(kind, old)?;
            let mut scale = change.of_object(write, Some(&scale), manager)?;
            write.place(&mut scale, name)?;
            readable(write, change, &scale)?;
            subresources::scaled(target, old, &scale)?
        }
    };
    let is_patch = !matches!(change, Change::Replace(_) | Change::Apply { .. });
    if is_patch && some(&after["metadata"]["name"]).is_none() {
        return Err(nameless(name));
    }
    write.place(&mut after, name)?;
    preconditions(write, change, old, &after)?;
    // An apply has said already who owns what.
    let managed = match change {
        Change::Apply { .. } => Some(after["metadata"]["managedFields"].clone()),
        _ => None,
    };
    if !target.is("scale") {
        readable(write, change, &after)?;
    }
    // Who says so wants the owners forgotten.
    let is_cleared = [json!([{}]), json!([])].contains(&after["metadata"]["managedFields"]);
    keep_others(target, old, &mut after);
    subresources::date(target, old, &mut after);
    let kept = validation::keep_metadata(old, &mut after);
    schema::prune(kind, &mut after, manager.operation == "Apply");
    rules::complete(kind, &mut after);
    match managed {
        _ if is_cleared => set(&mut after["metadata"], "managedFields", &Value::Null),
        Some(managed) => set(&mut after["metadata"], "managedFields", &managed),
        // Who gives a custom resource a scale that it did not have is not noted.
        None if target.is("scale") && subresources::read(kind, old).is_err() => {}
        None => {
            // A custom resource does not say when it was scaled.
            let now = (!target.is("scale") || kind.custom.is_none()).then(logs::now);
            managed::updated(kind, manager, Some(old), &mut after, now);
        }
    }
    let mut taken = Vec::new();
    if target.subresource.is_none() {
        taken = services::allocate(write.cluster, kind, Some(old), &mut after);
        if kind.is_core("pods") {
            admission::tolerate(&mut after["spec"]);
        }
        rules::allocate(kind, Some(old), &mut after);
    }
    let metadata = validation::metadata(target, kept, &checks::metadata(kind, &after));
    let mut faults = write.faults(&after, metadata);
    match target.subresource.as_deref() {
        None => faults.extend(validation::immutable(kind, old, &after)),
        Some("ephemeralcontainers") => faults.extend(validation::ephemeral(old, &after)),
        Some(_) => faults.extend(subresources::decided(target, old, &after)),
    }
    if faults.is_empty() {
        faults = taken;
    }
    if !faults.is_empty() {
        return Err(target.invalid(name, faults));
    }
    if target.subresource.is_none() {
        write.warn(Some(old), &after);
    }
    schema::unchecked(kind, &after)?;
    make_whole(&mut after);
    // Versions are views of the same objects.
    after["apiVersion"] = old["apiVersion"].clone();
    if after == *old {
        return Ok(Next::Same);
    }
    count_generation(kind, old, &mut after);
    let templates = "deprecated.daemonset.template.generation";
    if kind.resource.plural == "daemonsets" && after["spec"]["template"] != old["spec"]["template"]
    {
        let before = text(&old["metadata"]["annotations"][templates]).parse::<u64>();
        let next = before.unwrap_or_default() + 1;
        after["metadata"]["annotations"][templates] = next.to_string().into();
    }
    Ok(Next::Put(Object {
        json: after,
        message: before.message.clone(),
    }))
}

/// Refuses what is no object of its kind.
fn readable(write: &Write<'_>, change: &Change, after: &Value) -> Result<(), Refusal> {
    let is_converted = matches!(change, Change::Strategic);
    let is_readable = schema::check_types(&write.query.target.kind, after, is_converted);
    is_readable
        .and_then(|()| write.check_fields(after))
        .map_err(|refusal| match change {
            // `k8s.io/apiserver/pkg/endpoints/handlers/patch.go` words those of patches.
            Change::Strategic => {
                let patch = body::patch(&write.media, &write.body).unwrap_or_default();
                misread(&refusal, &patch::spelled(&patch))
            }
            Change::Merge | Change::Json => misread(&refusal, &after.to_string()),
            Change::Replace(_) | Change::Apply { .. } => refusal,
        })
}

/// Refuses a write to another object, or to another version of it, than it says.
fn preconditions(
    write: &Write<'_>,
    change: &Change,
    old: &Value,
    after: &Value,
) -> Result<(), Refusal> {
    let (target, name, kind) = (write.target, write.target.name(), &write.target.kind);
    let metadata = &after["metadata"];
    let version = some(&metadata["resourceVersion"]);
    if let Some(version) = version.filter(|version| version.parse::<u64>().is_err()) {
        let why = format!("strconv.ParseUint: parsing {version:?}: invalid syntax");
        return Err(failed(why));
    }
    if version.is_some_and(|version| old["metadata"]["resourceVersion"] != version) {
        let why = "the object has been modified; please apply your changes to the latest \
                   version and try again";
        return Err(target.conflict(name, why));
    }
    let uid = some(&metadata["uid"]).filter(|uid| old["metadata"]["uid"] != *uid);
    if let (Some(uid), Change::Replace(_)) = (uid, change) {
        let there = text(&old["metadata"]["uid"]);
        return Err(other(target, "UID", uid, there));
    }
    let is_versioned = kind.custom.is_some() || kind.is("versioned");
    if version.is_none()
        && matches!(change, Change::Replace(_))
        && is_versioned
        && !target.is("scale")
    {
        // `k8s.io/apiserver/pkg/registry/generic/registry/store.go`, Update.
        let field = "metadata.resourceVersion";
        let field = Invalid::value(field, "0", "must be specified for an update");
        return Err(invalid(&target.resource().to_string(), name, vec![field]));
    }
    Ok(())
}

/// The refusal of a write to what is another object, or another version of it, where it is stored
/// (`k8s.io/apiserver/pkg/storage/errors.go`).
pub(super) fn other(target: &Target, called: &str, wanted: &str, there: &str) -> Refusal {
    let (resource, name) = (target.resource(), target.name());
    let of = match &target.kind.custom {
        Some(_) => format!("{}/{}", resource.group, resource.plural),
        None => resource.plural.to_string(),
    };
    let key = [&of, &*target.namespace, name].into_iter();
    let key = key.filter(|part| !part.is_empty()).collect::<Vec<_>>();
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: /registry/{}, ResourceVersion: 0, \
         AdditionalErrorMsg: Precondition failed: {called} in precondition: {wanted}, {called} in \
         object meta: {there}",
        key.join("/")
    );
    target.conflict(name, &why)
}

/// The refusal of a patch after which an object has fields that it should not have.
fn misread(refusal: &Refusal, patch: &str) -> Refusal {
    let message = refusal.status().map_or("", |status| &status.message);
    let (_, why) = message
        .split_once("cannot be handled as a ")
        .unwrap_or(("", message));
    let (_, why) = why.split_once(": ").unwrap_or(("", message));
    invalid(
        "",
        "",
        vec![Invalid::value("patch", &format!("{patch:?}"), why)],
    )
}

/// Keeps what a request to this subresource, or to none, does not change. Most leave metadata to be
/// changed (`metav1.ResetObjectMetaForStatus` does not).
fn keep_others(target: &Target, before: &Value, after: &mut Value) {
    let kind = &target.kind;
    let own = match target.subresource.as_deref() {
        None if kind.has("status") => {
            set(after, "status", &before["status"]);
            if kind.is("kept") {
                set(after, "spec", &before["spec"]);
            }
            return;
        }
        Some("status") => "status",
        Some("finalize") => "spec.finalizers",
        Some("approval") => "status.conditions",
        Some("ephemeralcontainers") => "spec.ephemeralContainers",
        _ => return,
    };
    let value = at(after, own).clone();
    let metadata = std::mem::replace(after, before.clone())["metadata"].take();
    let (outer, own) = own.rsplit_once('.').unwrap_or(("", own));
    if let Some(outer) = at_mut(after, outer) {
        set(outer, own, &value);
    }
    if kind.custom.is_some() || kind.is("reset") || target.is("ephemeralcontainers") {
        return;
    }
    after["metadata"] = metadata;
    for field in ["labels", "ownerReferences"] {
        if kind.is(&format!("still.{field}")) {
            set(&mut after["metadata"], field, &before["metadata"][field]);
        }
    }
}

/// What is neither metadata nor a status with a subresource is the wish that the generation counts.
pub(crate) fn count_generation(kind: &Kind, before: &Value, after: &mut Value) {
    let has_status = kind.custom.is_none() || kind.has("status");
    let wish = |object: &Value| {
        let mut wish = object.clone();
        wish["metadata"] = match kind.is("labelled") {
            true => object["metadata"]["labels"].clone(),
            false => Value::Null,
        };
        if has_status {
            wish["status"] = Value::Null;
        }
        wish
    };
    if kind.is("gen") && !kind.is("once") && wish(after) != wish(before) {
        let generation = before["metadata"]["generation"].as_i64();
        after["metadata"]["generation"] = (generation.unwrap_or(0) + 1).into();
    }
}
