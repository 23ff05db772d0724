//! The metadata of an object, read from its bytes as far as asked.
//!
//! In goes an unparsed object; out come single fields. A [`Metadata`] remembers how far it has
//! read, so that asking for many fields reads each byte once at most, and asking for those that
//! come first reads little.

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    fmt,
};

use super::{
    Encoding, EventError, Object, Text,
    cursor::{API_VERSION, KIND, Key, MANAGED_FIELDS, METADATA, Members, Value},
    protobuf::{Envelope, type_meta},
};
use crate::wire::stamp::Stamp;

/// Fields of `metav1.ObjectMeta`, each with its name and its number in
/// `k8s.io/apimachinery/pkg/apis/meta/v1/generated.proto`.
macro_rules! fields {
    ($($field:ident $name:literal $number:literal)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        enum Field { $($field),* }

        const FIELDS: usize = [$(Field::$field),*].len();

        impl Field {
            fn of(key: &Key<'_>) -> Option<Self> {
                Some(match key {
                    Key::Name(name) => match &**name {
                        $($name => Self::$field,)*
                        _ => return None,
                    },
                    Key::Number(number) => match number {
                        $($number => Self::$field,)*
                        _ => return None,
                    },
                })
            }

            fn name(self) -> &'static [u8] {
                match self { $(Self::$field => $name),* }
            }
        }
    };
}

fields! {
    Name b"name" 1
    Namespace b"namespace" 3
    Uid b"uid" 5
    ResourceVersion b"resourceVersion" 6
    Generation b"generation" 7
    CreationTimestamp b"creationTimestamp" 8
    DeletionTimestamp b"deletionTimestamp" 9
    Labels b"labels" 11
    Annotations b"annotations" 12
}

/// The fields of an object that most readers want.
///
/// Text is borrowed from the object unless an escape had to be undone. A field that is absent is
/// empty, as it is in Kubernetes itself. Every method returns an error if the object is malformed
/// on the way to the field.
///
/// An absent field is known to be absent only when all of the metadata has been walked, or when its
/// name is nowhere behind the start of `annotations` or `managedFields`; nothing behind the metadata is
/// walked.
///
/// ```
/// use kubewire::watch::{Encoding, Object};
///
/// let json = r#"{"kind":"Pod","metadata":{"name":"web-0","labels":{"app":"web"}}}"#;
/// let object = Object::new(Encoding::Json, json.into());
/// let metadata = object.metadata()?;
/// assert_eq!((metadata.kind()?, metadata.name()?), ("Pod".into(), "web-0".into()));
/// assert_eq!(metadata.namespace()?, "");
/// # Ok::<(), kubewire::wire::watch::EventError>(())
/// ```
#[derive(Clone)]
pub struct Metadata<'a> {
    object: RefCell<TopLevel<'a>>,
    of_list: Option<&'a super::TypeMeta>,
    /// The members of the metadata that have not been read.
    members: RefCell<Members<'a>>,
    /// The annotations or the managed fields, if the members have come to them: most of the metadata,
    /// and mostly its end.
    last: Cell<Option<Value<'a>>>,
    found: [Cell<Option<Value<'a>>>; FIELDS],
}

/// The members of an object around its metadata.
#[derive(Clone)]
struct TopLevel<'a> {
    api_version: Option<Value<'a>>,
    kind: Option<Value<'a>>,
    /// Those that have not been read.
    members: Members<'a>,
}

impl<'a> TopLevel<'a> {
    fn new(encoding: Encoding, object: &'a [u8]) -> Result<Self, EventError> {
        let (mut said, mut message) = ([None; 2], object);
        if encoding == Encoding::Protobuf {
            let envelope = Envelope::open(encoding, object)?;
            let value = |value| Value::Protobuf { data: &[], value };
            said = type_meta(envelope.type_meta)?.map(|said| said.map(value));
            message = envelope.message;
        }
        let [api_version, kind] = said;
        Ok(Self {
            api_version,
            kind,
            members: Members::new(encoding, message)?,
        })
    }

    /// Reads on up to the metadata.
    fn metadata(&mut self) -> Result<Members<'a>, EventError> {
        while let Some((key, value)) = self.members.next()? {
            if key.is(METADATA) {
                return self.open(value);
            }
            self.keep(&key, value);
        }
        Ok(Members::NONE)
    }

    fn keep(&mut self, key: &Key<'_>, value: Value<'a>) {
        if key.is(API_VERSION) {
            self.api_version = Some(value);
        } else if key.is(KIND) {
            self.kind = Some(value);
        }
    }

    /// Reads on behind the metadata.
    fn advance(&mut self) -> Result<bool, EventError> {
        let Some((key, value)) = self.members.next()? else {
            return Ok(false);
        };
        self.keep(&key, value);
        Ok(true)
    }

    fn open(&self, metadata: Value<'a>) -> Result<Members<'a>, EventError> {
        // That of a Status is a list's, with other numbers.
        if let Some(Value::Protobuf { value, .. }) = self.kind
            && value.bytes()? == b"Status"
        {
            return Ok(Members::NONE);
        }
        metadata.members()
    }
}

impl<'a> Metadata<'a> {
    #[inline]
    pub(super) fn new(object: &'a Object) -> Result<Self, EventError> {
        let mut top = TopLevel::new(object.encoding, &object.bytes)?;
        let members = top.metadata()?;
        Ok(Self {
            object: RefCell::new(top),
            of_list: object.of_list.as_deref(),
            members: RefCell::new(members),
            last: Cell::default(),
            found: Default::default(),
        })
    }

    /// Such as `v1` or `apps/v1`.
    pub fn api_version(&self) -> Result<Text<'a>, EventError> {
        if let Some(of_list) = self.of_list {
            return Ok(of_list.api_version.as_str().into());
        }
        let mut object = self.object.borrow_mut();
        while object.api_version.is_none() && object.advance()? {}
        object
            .api_version
            .map_or(Ok(Cow::Borrowed("")), Value::text)
    }

    /// Such as `Pod`.
    pub fn kind(&self) -> Result<Text<'a>, EventError> {
        if let Some(of_list) = self.of_list {
            return Ok(of_list.kind.as_str().into());
        }
        let mut object = self.object.borrow_mut();
        while object.kind.is_none() && object.advance()? {}
        object.kind.map_or(Ok(Cow::Borrowed("")), Value::text)
    }

    /// The object's name.
    pub fn name(&self) -> Result<Text<'a>, EventError> {
        self.text(Field::Name)
    }

    /// The object's namespace; empty if it has none.
    pub fn namespace(&self) -> Result<Text<'a>, EventError> {
        self.text(Field::Namespace)
    }

    /// What tells this object from others that had or will have its name.
    pub fn uid(&self) -> Result<Text<'a>, EventError> {
        self.text(Field::Uid)
    }

    /// The version of the object, an opaque text.
    pub fn resource_version(&self) -> Result<Text<'a>, EventError> {
        self.text(Field::ResourceVersion)
    }

    /// How often the desired state has changed; 0 for resources that do not count.
    pub fn generation(&self) -> Result<i64, EventError> {
        self.get(Field::Generation)?.map_or(Ok(0), Value::integer)
    }

    /// When the object was created.
    pub fn creation_timestamp(&self) -> Result<Option<Stamp>, EventError> {
        self.get(Field::CreationTimestamp)?
            .map_or(Ok(None), Value::stamp)
    }

    /// Until when the object is to be gone, if its deletion has been asked for.
    pub fn deletion_timestamp(&self) -> Result<Option<Stamp>, EventError> {
        self.get(Field::DeletionTimestamp)?
            .map_or(Ok(None), Value::stamp)
    }

    /// The labels.
    pub fn labels(&self) -> Result<Labels<'a>, EventError> {
        self.entries(Field::Labels)
    }

    /// The annotations.
    pub fn annotations(&self) -> Result<Labels<'a>, EventError> {
        self.entries(Field::Annotations)
    }

    fn text(&self, field: Field) -> Result<Text<'a>, EventError> {
        self.get(field)?.map_or(Ok(Cow::Borrowed("")), Value::text)
    }

    fn entries(&self, field: Field) -> Result<Labels<'a>, EventError> {
        let entries = match self.get(field)? {
            Some(value) => value.entries()?,
            None => Members::NONE,
        };
        Ok(Labels { entries })
    }

    /// Reads on through the metadata until the field is found or there are no more.
    fn get(&self, wanted: Field) -> Result<Option<Value<'a>>, EventError> {
        if let Some(value) = self.found[wanted as usize].get() {
            return Ok(Some(value));
        }
        let is_absent = |last: Value<'_>| last.lacks(wanted.name());
        if self.last.get().is_some_and(is_absent) {
            return Ok(None);
        }
        let mut members = self.members.borrow_mut();
        while let Some((key, value)) = members.next()? {
            let is_long = match Field::of(&key) {
                Some(field) => {
                    let slot = &self.found[field as usize];
                    if slot.get().is_none() {
                        slot.set(Some(value));
                    }
                    if field == wanted {
                        return Ok(Some(value));
                    }
                    field == Field::Annotations
                }
                None => key.is(MANAGED_FIELDS),
            };
            if is_long {
                self.last.set(Some(value));
                if is_absent(value) {
                    return Ok(None);
                }
            }
        }
        Ok(None)
    }
}

impl fmt::Debug for Metadata<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metadata")
            .field("kind", &self.kind())
            .field("namespace", &self.namespace())
            .field("name", &self.name())
            .field("resource_version", &self.resource_version())
            .finish_non_exhaustive()
    }
}

/// The labels or the annotations of an object, in the order of its bytes.
///
/// After an error there are no more.
///
/// ```
/// use kubewire::watch::{Encoding, Object};
///
/// let json = r#"{"metadata":{"labels":{"app":"web","tier":"front"}}}"#;
/// let object = Object::new(Encoding::Json, json.into());
/// let labels = object.metadata()?.labels()?;
/// assert_eq!(labels.get("tier")?.as_deref(), Some("front"));
/// for label in labels {
///     let (key, value) = label?;
///     println!("{key}={value}");
/// }
/// # Ok::<(), kubewire::wire::watch::EventError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Labels<'a> {
    entries: Members<'a>,
}

impl<'a> Labels<'a> {
    /// The value of one of them.
    ///
    /// # Errors
    ///
    /// If the object is malformed on the way to it.
    pub fn get(&self, key: &str) -> Result<Option<Text<'a>>, EventError> {
        for entry in self.clone() {
            let (found, value) = entry?;
            if found == key {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    fn entry(&mut self) -> Result<Option<(Text<'a>, Text<'a>)>, EventError> {
        match self.unread()? {
            Some((key, value)) => Ok(Some((key, value.text()?))),
            None => Ok(None),
        }
    }

    /// The next, its value unread.
    pub(super) fn unread(&mut self) -> Result<Option<(Text<'a>, Value<'a>)>, EventError> {
        match self.entries.next()? {
            Some((key, value)) => Ok(Some((key.text(value.encoding())?, value))),
            None => Ok(None),
        }
    }
}

impl<'a> Iterator for Labels<'a> {
    type Item = Result<(Text<'a>, Text<'a>), EventError>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.entry();
        if entry.is_err() {
            self.entries = Members::NONE;
        }
        entry.transpose()
    }
}
