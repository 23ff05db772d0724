//! The metadata of an object, read from its bytes as far as asked.
//!
//! In goes an unparsed object; out come single fields. A [`Metadata`] remembers how far it has
//! read, so that asking for many fields reads each byte once at most, and asking for those that
//! come first reads little.

use std::{borrow::Cow, cell::Cell, fmt};

use super::{Encoding, EventError, Object, Text, cbor, json, protobuf};
use crate::wire::stamp::Stamp;

/// A field of `metav1.ObjectMeta`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Name,
    Namespace,
    Uid,
    ResourceVersion,
    Generation,
    CreationTimestamp,
    DeletionTimestamp,
    Labels,
    Annotations,
}

const FIELDS: usize = Field::Annotations as usize + 1;

impl Field {
    fn by_name(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"name" => Self::Name,
            b"namespace" => Self::Namespace,
            b"uid" => Self::Uid,
            b"resourceVersion" => Self::ResourceVersion,
            b"generation" => Self::Generation,
            b"creationTimestamp" => Self::CreationTimestamp,
            b"deletionTimestamp" => Self::DeletionTimestamp,
            b"labels" => Self::Labels,
            b"annotations" => Self::Annotations,
            _ => return None,
        })
    }

    /// `ObjectMeta` in `k8s.io/apimachinery/pkg/apis/meta/v1/generated.proto`.
    fn by_number(number: u64) -> Option<Self> {
        Some(match number {
            1 => Self::Name,
            3 => Self::Namespace,
            5 => Self::Uid,
            6 => Self::ResourceVersion,
            7 => Self::Generation,
            8 => Self::CreationTimestamp,
            9 => Self::DeletionTimestamp,
            LABELS => Self::Labels,
            ANNOTATIONS => Self::Annotations,
            _ => return None,
        })
    }
}

const LABELS: u64 = 11;
const ANNOTATIONS: u64 = 12;

/// The members of an object in any encoding.
#[derive(Debug, Clone, Copy)]
enum Members<'a> {
    None,
    Json(json::Members<'a>),
    Protobuf(protobuf::Fields<'a>),
    Cbor(cbor::Entries<'a>),
}

/// A member's value; in JSON and CBOR the data from its start on.
#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    Json(&'a [u8]),
    Protobuf(protobuf::Value<'a>),
    /// Map entries, from the first on: protobuf repeats the field for each.
    Repeated(protobuf::Fields<'a>, u64),
    Cbor(&'a [u8]),
}

impl<'a> Value<'a> {
    fn text(self) -> Result<Text<'a>, EventError> {
        match self {
            Self::Json(data) => json::text(data),
            Self::Protobuf(value) => value.text().map(Cow::Borrowed),
            Self::Cbor(data) => cbor::text(data).map(Cow::Borrowed),
            Self::Repeated(..) => Ok(Cow::Borrowed("")),
        }
    }

    fn integer(self) -> Result<i64, EventError> {
        match self {
            Self::Json(data) => json::integer(data),
            Self::Protobuf(value) => value.number().map(|number| number as i64),
            Self::Cbor(data) => cbor::integer(data),
            Self::Repeated(..) => Ok(0),
        }
    }

    fn stamp(self) -> Result<Option<Stamp>, EventError> {
        let (encoding, text) = match self {
            // metav1.Time: seconds = 1, nanos = 2.
            Self::Protobuf(value) => {
                let (mut seconds, mut nanos) = (None, 0);
                let mut fields = protobuf::Fields::new(value.bytes()?);
                while let Some((number, value)) = fields.next()? {
                    match number {
                        1 => seconds = Some(value.number()? as i64),
                        2 => nanos = value.number()? as u32,
                        _ => {}
                    }
                }
                return Ok(seconds.and_then(|seconds| Stamp::from_unix(seconds, nanos)));
            }
            Self::Repeated(..) => return Ok(None),
            Self::Json(data) => (Encoding::Json, json::text(data)?),
            Self::Cbor(data) => (Encoding::Cbor, Cow::Borrowed(cbor::text(data)?)),
        };
        if text.is_empty() {
            return Ok(None);
        }
        Stamp::parse(text.as_bytes())
            .map(Some)
            .ok_or(EventError::Malformed {
                encoding,
                what: "a time is not RFC 3339",
            })
    }

    fn map(self) -> Result<Labels<'a>, EventError> {
        let entries = match self {
            Self::Json(data) => Members::Json(json::Members::new(data)?),
            Self::Cbor(data) => Members::Cbor(cbor::Entries::new(data)?),
            Self::Repeated(fields, number) => {
                return Ok(Labels {
                    entries: Members::Protobuf(fields),
                    number,
                });
            }
            Self::Protobuf(_) => Members::None,
        };
        Ok(Labels { entries, number: 0 })
    }
}

/// The fields of an object that most readers want.
///
/// Text is borrowed from the object unless an escape had to be undone. A field that is absent is
/// empty, as it is in Kubernetes itself. Every method returns an error if the object is malformed
/// on the way to the field.
///
/// An absent field is known to be absent only when all of the metadata has been walked; nothing
/// behind it is.
#[derive(Clone)]
pub struct Metadata<'a> {
    api_version: Cell<Option<Value<'a>>>,
    kind: Cell<Option<Value<'a>>>,
    /// The object's members behind `metadata`.
    object: Cell<Members<'a>>,
    of_list: Option<&'a super::TypeMeta>,
    members: Cell<Members<'a>>,
    found: [Cell<Option<Value<'a>>>; FIELDS],
}

impl<'a> Metadata<'a> {
    pub(super) fn new(object: &'a Object) -> Result<Self, EventError> {
        let data = &*object.bytes;
        let metadata = Self {
            api_version: Cell::new(None),
            kind: Cell::new(None),
            object: Cell::new(Members::None),
            of_list: object.of_list.as_deref(),
            members: Cell::new(Members::None),
            found: Default::default(),
        };
        match object.encoding {
            Encoding::Protobuf => {
                let envelope = protobuf::Envelope::open(data)?;
                let text = |text: &'a str| Value::Protobuf(protobuf::Value::Bytes(text.as_bytes()));
                if !envelope.kind.is_empty() {
                    metadata.api_version.set(Some(text(envelope.api_version)));
                    metadata.kind.set(Some(text(envelope.kind)));
                }
                // Field 1 is the metadata in every object; in a Status it is a list's.
                if envelope.kind != "Status"
                    && let Some(value) = protobuf::Fields::new(envelope.message).find(1)?
                {
                    let fields = protobuf::Fields::new(value.bytes()?);
                    metadata.members.set(Members::Protobuf(fields));
                }
            }
            Encoding::Json => {
                let members = json::Members::new(data)?;
                metadata.object.set(Members::Json(members));
                metadata.advance(|m| m.metadata_found())?;
            }
            Encoding::Cbor => {
                let entries = cbor::Entries::new(data)?;
                metadata.object.set(Members::Cbor(entries));
                metadata.advance(|m| m.metadata_found())?;
            }
        }
        Ok(metadata)
    }

    /// Such as `v1` or `apps/v1`.
    pub fn api_version(&self) -> Result<Text<'a>, EventError> {
        if let Some(of_list) = self.of_list {
            return Ok(of_list.api_version.as_str().into());
        }
        self.advance(|m| m.api_version.get().is_some())?;
        self.api_version
            .get()
            .map_or(Ok(Cow::Borrowed("")), Value::text)
    }

    /// Such as `Pod`.
    pub fn kind(&self) -> Result<Text<'a>, EventError> {
        if let Some(of_list) = self.of_list {
            return Ok(of_list.kind.as_str().into());
        }
        self.advance(|m| m.kind.get().is_some())?;
        self.kind.get().map_or(Ok(Cow::Borrowed("")), Value::text)
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
        self.map(Field::Labels)
    }

    /// The annotations.
    pub fn annotations(&self) -> Result<Labels<'a>, EventError> {
        self.map(Field::Annotations)
    }

    fn text(&self, field: Field) -> Result<Text<'a>, EventError> {
        self.get(field)?.map_or(Ok(Cow::Borrowed("")), Value::text)
    }

    fn map(&self, field: Field) -> Result<Labels<'a>, EventError> {
        self.get(field)?.map_or(Ok(Labels::EMPTY), Value::map)
    }

    fn metadata_found(&self) -> bool {
        !matches!(self.members.get(), Members::None)
    }

    /// Reads members of the object until there are no more or `enough` says so.
    fn advance(&self, enough: impl Fn(&Self) -> bool) -> Result<(), EventError> {
        while !enough(self) {
            let mut members = self.object.get();
            let (name, value) = match &mut members {
                Members::Json(members) => match members.next()? {
                    Some((name, value)) => (name, Value::Json(value)),
                    None => return Ok(()),
                },
                Members::Cbor(entries) => match entries.next()? {
                    Some((key, value)) => (Cow::Borrowed(key), Value::Cbor(value)),
                    None => return Ok(()),
                },
                Members::Protobuf(_) | Members::None => return Ok(()),
            };
            match (&*name, value) {
                (b"apiVersion", value) => self.api_version.set(Some(value)),
                (b"kind", value) => self.kind.set(Some(value)),
                (b"metadata", Value::Json(data)) if !self.metadata_found() => {
                    self.members.set(Members::Json(json::Members::new(data)?));
                }
                (b"metadata", Value::Cbor(data)) if !self.metadata_found() => {
                    self.members.set(Members::Cbor(cbor::Entries::new(data)?));
                }
                _ => {}
            }
            self.object.set(members);
        }
        Ok(())
    }

    /// Reads on through the metadata until the field is found or there are no more.
    fn get(&self, wanted: Field) -> Result<Option<Value<'a>>, EventError> {
        if let Some(value) = self.found[wanted as usize].get() {
            return Ok(Some(value));
        }
        let mut members = self.members.get();
        loop {
            let found = match &mut members {
                Members::Json(members) => members
                    .next()?
                    .map(|(name, value)| (Field::by_name(&name), Value::Json(value))),
                Members::Cbor(entries) => entries
                    .next()?
                    .map(|(key, value)| (Field::by_name(key), Value::Cbor(value))),
                Members::Protobuf(fields) => {
                    let from_here = *fields;
                    fields.next()?.map(|(number, value)| match number {
                        LABELS | ANNOTATIONS => {
                            (Field::by_number(number), Value::Repeated(from_here, number))
                        }
                        _ => (Field::by_number(number), Value::Protobuf(value)),
                    })
                }
                Members::None => None,
            };
            self.members.set(members);
            let Some((field, value)) = found else {
                return Ok(None);
            };
            if let Some(field) = field {
                let slot = &self.found[field as usize];
                if slot.get().is_none() {
                    slot.set(Some(value));
                }
                if field == wanted {
                    return Ok(Some(value));
                }
            }
        }
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
#[derive(Debug, Clone)]
pub struct Labels<'a> {
    entries: Members<'a>,
    number: u64,
}

impl<'a> Labels<'a> {
    const EMPTY: Self = Self {
        entries: Members::None,
        number: 0,
    };

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
        match &mut self.entries {
            Members::None => Ok(None),
            Members::Json(members) => {
                let Some((name, value)) = members.next()? else {
                    return Ok(None);
                };
                let name = match name {
                    Cow::Borrowed(name) => String::from_utf8_lossy(name),
                    Cow::Owned(name) => String::from_utf8_lossy(&name).into_owned().into(),
                };
                Ok(Some((name, json::text(value)?)))
            }
            Members::Cbor(entries) => {
                let Some((key, value)) = entries.next()? else {
                    return Ok(None);
                };
                let key = std::str::from_utf8(key)
                    .map_err(|_| cbor::malformed("a string is not UTF-8"))?;
                Ok(Some((key.into(), cbor::text(value)?.into())))
            }
            Members::Protobuf(fields) => {
                while let Some((number, value)) = fields.next()? {
                    if number != self.number {
                        continue;
                    }
                    // A map's entry: key = 1, value = 2.
                    let (mut key, mut text) = ("", "");
                    let mut entry = protobuf::Fields::new(value.bytes()?);
                    while let Some((number, value)) = entry.next()? {
                        match number {
                            1 => key = value.text()?,
                            2 => text = value.text()?,
                            _ => {}
                        }
                    }
                    return Ok(Some((key.into(), text.into())));
                }
                Ok(None)
            }
        }
    }
}

impl<'a> Iterator for Labels<'a> {
    type Item = Result<(Text<'a>, Text<'a>), EventError>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.entry();
        if entry.is_err() {
            self.entries = Members::None;
        }
        entry.transpose()
    }
}
