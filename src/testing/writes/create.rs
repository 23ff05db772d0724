//! Creations: in flow objects as clients send them, out they come with the server's part in them, in
//! a namespace that is there and under a name that no other has.

use http::{Response, StatusCode};
use serde_json::Value;

use super::{
    Write, admission,
    managed::{self, Manager},
    services,
};
use crate::{
    resource::suffix,
    server::Refusal,
    testing::{
        checks::{self, schema, validation},
        kinds::rules,
        objects::{
            controllers,
            store::{self, Next, Object},
            views,
        },
        pods::logs,
        requests::target::{failed, missing, refusal, refuse},
        router::Body,
        values::json::{make_whole, set, some, text},
    },
};

pub(super) fn create(write: &Write<'_>) -> Result<Response<Body>, Refusal> {
    let target = write.target;
    let (api_version, kind) = write.expected();
    let mut object = write.object(&api_version, kind)?;
    let metadata = &mut object["metadata"];
    if let (None, Some(prefix)) = (some(&metadata["name"]), some(&metadata["generateName"])) {
        // `k8s.io/apiserver/pkg/storage/names/generate.go`.
        let front: String = prefix.chars().take(58).collect();
        metadata["name"] = format!("{front}{}", suffix()).into();
    }
    let name = text(&metadata["name"]).to_owned();
    // What is no number is passed over, and a dry run does not look.
    let version = text(&metadata["resourceVersion"]).parse::<u64>();
    set(metadata, "resourceVersion", &Value::Null);
    if version.is_ok_and(|version| version > 0) && !write.dry {
        // Nothing turns this error of `storage/errors.go` into a refusal of the client's.
        let message = "resourceVersion should not be set on objects to be created";
        return Err(failed(message));
    }
    write.place(&mut object, &name)?;
    write.check_namespace(&name)?;
    let object = write.complete(object, &write.manager("Update"))?;
    write.check_rights(None, &object)?;
    let object = views::stored(&target.kind, object);
    let key = store::key(target.resource(), &target.namespace, &name);
    let written = write.cluster.store.write(key, write.dry, |before| {
        if let Some(before) = before {
            let front = match before.json["metadata"]["deletionTimestamp"].is_null() {
                true => "",
                false => "object is being deleted: ",
            };
            let message = format!("{front}{} {name:?} already exists", target.resource());
            return Err(refuse(
                target.resource(),
                &name,
                (409, "AlreadyExists"),
                message,
            ));
        }
        Ok(Next::Put(Object::new(object.clone())))
    })?;
    let written = written.ok_or_else(|| target.missing(&name))?;
    if !write.dry {
        controllers::after(write.cluster, &target.kind, None, &written.json);
    }
    let mut response = write.answer(&written)?;
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}

impl Write<'_> {
    /// Refuses objects in namespaces that are not there, or no longer for long.
    pub(super) fn check_namespace(&self, name: &str) -> Result<(), Refusal> {
        let namespace = &self.target.namespace;
        if namespace.is_empty() {
            return Ok(());
        }
        let kind = self.cluster.kinds.core("namespaces");
        let key = store::key(&kind.resource, "", namespace);
        let Some(found) = self.cluster.store.get(&key) else {
            return Err(missing(&kind.resource, namespace));
        };
        if !found.json["metadata"]["deletionTimestamp"].is_null() {
            let resource = self.target.resource();
            let message = format!(
                "{resource} {name:?} is forbidden: unable to create new content in namespace \
                 {namespace} because it is being terminated"
            );
            let why = format!("namespace {namespace} is being terminated");
            let cause = ("NamespaceTerminating", why, "metadata.namespace".to_owned());
            let of = [&*resource.group, &*resource.plural, name];
            return Err(refusal((403, "Forbidden"), message, of, [cause]));
        }
        Ok(())
    }

    /// A new object as it is stored.
    pub(super) fn complete(&self, mut object: Value, manager: &Manager) -> Result<Value, Refusal> {
        let kind = &self.target.kind;
        let servers = "uid creationTimestamp deletionTimestamp deletionGracePeriodSeconds \
                       managedFields selfLink";
        for field in servers.split(' ') {
            set(&mut object["metadata"], field, &Value::Null);
        }
        if kind.has("status") {
            set(&mut object, "status", &Value::Null);
        }
        // Others keep what they come with.
        if kind.is("gen") && !kind.is("late") {
            object["metadata"]["generation"] = 1.into();
        }
        self.check_fields(&object)?;
        schema::prune(kind, &mut object, manager.operation == "Apply");
        rules::complete(kind, &mut object);
        let asked = kind.is("asks").then(|| object["spec"].take());
        if manager.operation == "Update" {
            managed::updated(kind, manager, None, &mut object, logs::now());
        }
        if let Some(mut spec) = asked {
            let own = self.user.info();
            for field in ["username", "uid", "groups", "extra"] {
                set(&mut spec, field, &own[field]);
            }
            object["spec"] = spec;
        }
        self.admit(&mut object)?;
        object["metadata"]["uid"] = self.uid.clone().into();
        let taken = services::allocate(self.cluster, kind, None, &mut object);
        rules::allocate(kind, None, &mut object);
        let mut metadata = validation::names(kind, &object);
        metadata.extend(checks::metadata(kind, &object));
        let faults = match self.faults(&object, metadata) {
            faults if faults.is_empty() => taken,
            faults => faults,
        };
        match faults {
            faults if faults.is_empty() => {
                self.warn(None, &object);
                make_whole(&mut object);
                schema::unchecked(kind, &object)?;
                admission::counted(self.cluster, kind, &self.target.namespace)?;
                Ok(object)
            }
            faults => Err(self
                .target
                .invalid(text(&object["metadata"]["name"]), faults)),
        }
    }
}
