//! The metadata of an object to keep: out of the bytes of the object, and without them.

use super::{EventError, Labels, Object};
use crate::wire::stamp::Stamp;

/// The metadata of an object, in memory of its own: what a [`Mirror`](crate::session::watch::Mirror)
/// keeps of objects that are too many to keep whole.
///
/// ```
/// use kubewire::{watch::{Mirror, Update}, wire::watch::ObjectMeta};
///
/// fn apply(mirror: &mut Mirror<ObjectMeta>, update: &Update) -> kubewire::Result<()> {
///     mirror.apply(update, ObjectMeta::of)?;
///     Ok(())
/// }
/// ```
///
/// Two things are left out, which take several times as much as all others: who manages which
/// field, and the annotation with which `kubectl apply` keeps a copy of the object
/// (`kubectl.kubernetes.io/last-applied-configuration`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectMeta {
    /// The name.
    pub name: Box<str>,
    /// The namespace; empty if it has none.
    pub namespace: Box<str>,
    /// What tells this object from others that had or will have its name.
    pub uid: Box<str>,
    /// The version, an opaque text.
    pub resource_version: Box<str>,
    /// How often the desired state has changed; 0 for resources that do not count.
    pub generation: i64,
    /// When the object was created.
    pub creation_timestamp: Option<Stamp>,
    /// Until when the object is to be gone, if its deletion has been asked for.
    pub deletion_timestamp: Option<Stamp>,
    /// The labels, by name.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    /// The annotations, by name.
    pub annotations: Box<[(Box<str>, Box<str>)]>,
}

impl ObjectMeta {
    /// The metadata of `object`.
    ///
    /// # Errors
    ///
    /// If the object is malformed.
    pub fn of(object: &Object) -> Result<Self, EventError> {
        let metadata = object.metadata()?;
        Ok(Self {
            // Which most objects do not have: all others are found on the way.
            deletion_timestamp: metadata.deletion_timestamp()?,
            name: (*metadata.name()?).into(),
            namespace: (*metadata.namespace()?).into(),
            uid: (*metadata.uid()?).into(),
            resource_version: (*metadata.resource_version()?).into(),
            generation: metadata.generation()?,
            creation_timestamp: metadata.creation_timestamp()?,
            labels: entries(metadata.labels()?)?,
            annotations: entries(metadata.annotations()?)?,
        })
    }

    /// The value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        find(&self.labels, name)
    }

    /// The value of an annotation.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        find(&self.annotations, name)
    }
}

type Entries = Box<[(Box<str>, Box<str>)]>;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

fn entries(mut labels: Labels<'_>) -> Result<Entries, EventError> {
    let mut entries = Vec::new();
    while let Some((name, value)) = labels.unread()? {
        // A whole object with every quote escaped: more to read than all else.
        if name != LAST_APPLIED {
            entries.push(((*name).into(), (*value.text()?).into()));
        }
    }
    entries.sort_unstable();
    Ok(entries.into())
}

fn find<'a>(entries: &'a [(Box<str>, Box<str>)], name: &str) -> Option<&'a str> {
    let at = entries.binary_search_by(|(known, _)| (**known).cmp(name));
    Some(&entries[at.ok()?].1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::watch::Encoding;

    #[test]
    fn what_is_kept_is_found_again() {
        let text = r#"{"kind":"Pod","metadata":{"name":"a","namespace":"b","uid":"u",
            "resourceVersion":"7","generation":3,"creationTimestamp":"2026-11-22T01:55:41Z",
            "deletionTimestamp":null,"labels":{"x":"1","app":"w\u0065b"},
            "annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{}","b":"2"}}}"#;
        let meta = ObjectMeta::of(&Object::new(Encoding::Json, text.into())).unwrap();
        assert_eq!((&*meta.name, &*meta.namespace, &*meta.uid), ("a", "b", "u"));
        assert_eq!((&*meta.resource_version, meta.generation), ("7", 3));
        assert_eq!(
            meta.creation_timestamp,
            Stamp::parse(b"2026-11-22T01:55:41Z")
        );
        assert_eq!(meta.deletion_timestamp, None);
        assert_eq!(
            (meta.label("app"), meta.label("x")),
            (Some("web"), Some("1"))
        );
        assert_eq!((meta.label("y"), meta.annotation("b")), (None, Some("2")));
        assert_eq!(meta.annotations.len(), 1);
    }

    #[test]
    fn what_stands_behind_what_is_long_is_found() {
        let at = Stamp::parse(b"2026-11-22T01:55:41Z");
        for (behind, expected) in [
            (r#","deletionTimestamp":"2026-11-22T01:55:41Z""#, at),
            (r#","d\u0065letionTimestamp":"2026-11-22T01:55:41Z""#, at),
            (r#","finalizers":["deletionTimestamp","\u0041"]"#, None),
            (r#","finalizers":["\u003e"]"#, None),
            (r#","delet\u0069onTimestamp":"2026-11-22T01:55:41Z""#, at),
            (r#","deletion\u0054imestamp":"2026-11-22T01:55:41Z""#, at),
            ("", None),
        ] {
            for long in [
                r#""managedFields":[{"f:x":{}}]"#,
                r#""annotations":{"f:x":"{}"}"#,
            ] {
                let text = format!(r#"{{"metadata":{{{long}{behind},"name":"a"}}}}"#);
                let object = Object::new(Encoding::Json, text.clone().into());
                let meta = ObjectMeta::of(&object).unwrap();
                assert_eq!(meta.deletion_timestamp, expected, "{text}");
                assert_eq!((&*meta.name, meta.generation), ("a", 0), "{text}");
            }
        }
    }

    #[test]
    fn what_is_long_is_not_walked_for_what_is_not_behind_it() {
        for long in [
            r#""managedFields":["labels"#,
            r#""annotations":{"labels":"\u003e"#,
        ] {
            let text = format!(r#"{{"metadata":{{"name":"a",{long}"#);
            let object = Object::new(Encoding::Json, text.into());
            let metadata = object.metadata().unwrap();
            assert_eq!(metadata.deletion_timestamp(), Ok(None));
            assert!(metadata.labels().is_err());
        }
    }
}
