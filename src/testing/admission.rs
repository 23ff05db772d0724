//! Admission: in flow pods that are to be created, out come refusals of those that ask for what only
//! others may give them.

use serde_json::{Value, json};

use super::{json::text, store, target::forbidden, writes::Write};
use crate::{Resource, server::Refusal};

impl Write<'_> {
    /// Refuses pods that say themselves how important they are, other than by a class
    /// (`k8s.io/kubernetes/plugin/pkg/admission/priority`).
    pub(super) fn admit(&self, pod: &Value) -> Result<(), Refusal> {
        let (spec, resource) = (&pod["spec"], self.target.resource());
        if !self.target.kind.is_core("pods") {
            return Ok(());
        }
        let class = text(&spec["priorityClassName"]);
        let classes = Resource::cluster("scheduling.k8s.io", "v1", "priorityclasses");
        let known = self.cluster.store.get(&store::key(&classes, "", class));
        let of = |field: &str| known.as_ref().map(|known| known.json[field].clone());
        let value = match class {
            "" => Some(json!(0)),
            "system-node-critical" => Some(json!(2_000_001_000)),
            "system-cluster-critical" => Some(json!(2_000_000_000)),
            _ => of("value"),
        };
        let policy = of("preemptionPolicy").unwrap_or("PreemptLowerPriority".into());
        let (priority, given) = (&spec["priority"], text(&spec["preemptionPolicy"]));
        let computed = "must not be provided in pod spec; priority admission controller computed";
        let why = match value {
            None => format!("no PriorityClass with name {class} was found"),
            Some(value) if !priority.is_null() && *priority != value => format!(
                "the integer value of priority ({priority}) {computed} {value} from the given \
                 PriorityClass name"
            ),
            Some(_) if !given.is_empty() && policy != given => format!(
                "the string value of PreemptionPolicy ({given}) {computed} {} from the given \
                 PriorityClass name",
                text(&policy)
            ),
            Some(_) => return Ok(()),
        };
        let name = text(&pod["metadata"]["name"]);
        Err(forbidden(resource, name, &why))
    }
}
