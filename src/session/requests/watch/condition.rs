//! What to wait for: in flows an object, or that there is none, out comes whether it is so.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

/// What an object is waited for to be, the same for as many objects as one likes.
///
/// ```
/// use k8s_openapi::api::core::v1::Pod;
/// use kubewire::watch::Condition;
///
/// let ready = Condition::<Pod>::ready();
/// let scheduled = Condition::when(|pod: Option<&Pod>| {
///     pod.is_some_and(|pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()))
/// });
/// assert!(!ready.holds(None) && !scheduled.holds(Some(&Pod::default())));
/// ```
pub struct Condition<K> {
    test: Arc<Test<K>>,
    /// It holds where the object was deleted, also if there is another of its name now.
    pub(crate) is_deletion: bool,
}

type Test<K> = dyn Fn(Option<&K>) -> bool + Send + Sync;

impl<K> Condition<K> {
    /// This is true of the object; `None` is that there is none.
    pub fn when(test: impl Fn(Option<&K>) -> bool + Send + Sync + 'static) -> Self {
        Self {
            test: Arc::new(test),
            is_deletion: false,
        }
    }

    /// The object is gone, or another has its name.
    pub fn deleted() -> Self {
        Self {
            is_deletion: true,
            ..Self::when(|object| object.is_none())
        }
    }

    /// The object's condition of this type, `Available` or `Complete`, has this status: `True`,
    /// `False`. Upper and lower case do not matter. A condition that was observed of an older
    /// generation of the object does not count (`k8s.io/kubectl/pkg/cmd/wait/condition.go`).
    ///
    /// It is looked for in `status.conditions` of the object as it is written: a type that leaves
    /// these out never has any.
    pub fn is(condition: impl Into<String>, status: impl Into<String>) -> Self
    where
        K: Serialize,
    {
        let (condition, status) = (condition.into(), status.into());
        Self::when(move |object| {
            let object = object.and_then(|object| serde_json::to_value(object).ok());
            object.is_some_and(|object| has(&object, &condition, &status))
        })
    }

    /// The condition of this type [is](Self::is) `True`.
    pub fn is_true(condition: impl Into<String>) -> Self
    where
        K: Serialize,
    {
        Self::is(condition, "True")
    }

    /// The condition `Ready` is `True`: of a Pod, a Node and most custom resources.
    pub fn ready() -> Self
    where
        K: Serialize,
    {
        Self::is_true("Ready")
    }

    /// Whether it holds of this object, or where there is none.
    pub fn holds(&self, object: Option<&K>) -> bool {
        (self.test)(object)
    }
}

fn has(object: &Value, condition: &str, wanted: &str) -> bool {
    let is = |value: &Value, text: &str| {
        let value = value.as_str();
        value.is_some_and(|value| value.eq_ignore_ascii_case(text))
    };
    let status = &object["status"];
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    let found = conditions.find(|it| is(&it["type"], condition));
    found.is_some_and(|found| {
        let [own, other] = [found, status].map(|it| it["observedGeneration"].as_i64());
        let generation = object["metadata"]["generation"].as_i64();
        let is_old = own.or(other).is_some_and(|seen| Some(seen) < generation);
        !is_old && is(&found["status"], wanted)
    })
}

impl<K> Clone for Condition<K> {
    fn clone(&self) -> Self {
        Self {
            test: self.test.clone(),
            is_deletion: self.is_deletion,
        }
    }
}

debug_fields!([K] Condition<K> {});

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_condition_counts_for_the_generation_that_it_was_observed_of() {
        let ready = Condition::<Value>::ready();
        let object = |generation: i64, of_status: Value, of_condition: Value, status: &str| {
            json!({
                "metadata": {"generation": generation},
                "status": {"observedGeneration": of_status, "conditions": [
                    {"type": "Other", "status": "True"},
                    {"type": "ready", "status": status, "observedGeneration": of_condition},
                ]},
            })
        };
        for (object, expected) in [
            (object(2, json!(2), json!(null), "True"), true),
            (object(2, json!(1), json!(null), "True"), false),
            (object(2, json!(1), json!(2), "True"), true),
            (object(2, json!(null), json!(null), "true"), true),
            (object(2, json!(2), json!(null), "False"), false),
            (json!({"status": {"conditions": "none"}}), false),
            (json!({}), false),
        ] {
            assert_eq!(ready.holds(Some(&object)), expected, "{object}");
        }
        assert!(!ready.holds(None));
        assert!(Condition::<Value>::deleted().holds(None));
    }
}
