//! The answer to a list request, opened without parsing its items.
//!
//! In goes a whole response body; out come the list's resourceVersion, what continues it, and
//! each item as an [`Object`] that shares the body's buffer.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Encoding, EventError, Object, TypeMeta, cbor,
    cursor::{API_VERSION, Field, KIND, METADATA, Members},
    json, protobuf,
};

/// `items`, of every list.
const ITEMS: Field = Field("items", 2);
// `ListMeta` and `ShardInfo` in `k8s.io/apimachinery/pkg/apis/meta/v1/generated.proto`.
const RESOURCE_VERSION: Field = Field("resourceVersion", 2);
const CONTINUE: Field = Field("continue", 3);
const SHARD_INFO: Field = Field("shardInfo", 5);
const SELECTOR: Field = Field("selector", 1);

/// A list, or one page of it.
#[derive(Debug, Clone)]
pub struct List {
    encoding: Encoding,
    body: Bytes,
    items: Option<Bytes>,
    of_list: Option<Arc<TypeMeta>>,
    is_table: bool,
    /// The version at which the items were read: where a watch begins.
    pub resource_version: String,
    /// What fetches the next page; empty on the last.
    pub continue_token: String,
    /// `metadata.shardInfo.selector`: the shard that the server confined the list to (KEP-5866).
    /// Empty if the server knows nothing of shards.
    pub shard_selector: String,
}

impl List {
    /// Opens a list.
    ///
    /// # Errors
    ///
    /// If the body is malformed before or behind its items. Items are looked at one at a time,
    /// by [`items`](Self::items).
    pub fn parse(encoding: Encoding, body: Bytes) -> Result<Self, EventError> {
        let mut list = Self {
            encoding,
            body: body.clone(),
            items: None,
            of_list: None,
            is_table: false,
            resource_version: String::new(),
            continue_token: String::new(),
            shard_selector: String::new(),
        };
        let mut meta = TypeMeta::default();
        let mut members = Members::of_object(encoding, &body)?;
        while let Some((key, value)) = members.next()? {
            if key.is(API_VERSION) {
                meta.api_version = value.text()?.into_owned();
            } else if key.is(KIND) {
                meta.kind = value.text()?.into_owned();
            } else if key.is(METADATA) {
                list.metadata(value.members()?)?;
            } else if key.is(ITEMS) && list.items.is_none() {
                list.items = Some(body.slice_ref(value.data()));
            }
        }
        list.is_table = meta.kind == "Table";
        // The items of a `PodList` are Pods and do not say so; those of a plain `List` do.
        if let Some(kind) = meta
            .kind
            .strip_suffix("List")
            .filter(|kind| !kind.is_empty())
        {
            meta.kind = kind.into();
            list.of_list = Some(Arc::new(meta));
        }
        Ok(list)
    }

    fn metadata(&mut self, mut members: Members<'_>) -> Result<(), EventError> {
        while let Some((key, value)) = members.next()? {
            if key.is(RESOURCE_VERSION) {
                self.resource_version = value.text()?.into_owned();
            } else if key.is(CONTINUE) {
                self.continue_token = value.text()?.into_owned();
            } else if key.is(SHARD_INFO) {
                let mut members = value.members()?;
                while let Some((key, value)) = members.next()? {
                    if key.is(SELECTOR) {
                        self.shard_selector = value.text()?.into_owned();
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether it is a `Table`, which has rows and no items.
    pub fn is_table(&self) -> bool {
        self.is_table
    }

    /// The list itself as an object: what `Table` answers are decoded from.
    pub fn object(&self) -> Object {
        Object::new(self.encoding, self.body.clone())
    }

    /// The items, one at a time.
    pub fn items(&self) -> Items {
        Items {
            encoding: self.encoding,
            of_list: self.of_list.clone(),
            state: State::Start(self.items.clone()),
        }
    }
}

/// The items of a [`List`]. After an error there are no more.
#[derive(Debug, Clone)]
pub struct Items {
    encoding: Encoding,
    of_list: Option<Arc<TypeMeta>>,
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    Start(Option<Bytes>),
    /// What follows the last item; for CBOR the number of items in it.
    Rest(Bytes, u64),
    End,
}

impl Items {
    fn item(&mut self) -> Result<Option<Bytes>, EventError> {
        let (mut rest, mut left) = match std::mem::replace(&mut self.state, State::End) {
            State::Start(Some(items)) => match self.start(items)? {
                Some(start) => start,
                None => return Ok(None),
            },
            State::Rest(rest, left) => (rest, left),
            State::Start(None) | State::End => return Ok(None),
        };
        let item = match self.encoding {
            Encoding::Json => {
                let at = json::skip_space(&rest, 0);
                match rest.get(at) {
                    Some(b']') => return Ok(None),
                    Some(b',') => {}
                    _ if left == 0 => {}
                    _ => {
                        return Err(json::malformed(
                            "an item or the end of the list should follow",
                        ));
                    }
                }
                let at = match rest.get(at) {
                    Some(b',') if left > 0 => json::skip_space(&rest, at + 1),
                    _ => at,
                };
                let end = at + json::skip_value(&rest[at..])?;
                let item = rest.slice(at..end);
                rest = rest.slice(end..);
                left += 1;
                item
            }
            Encoding::Cbor => {
                if left == 0 {
                    return Ok(None);
                }
                left -= 1;
                rest.split_to(cbor::skip(&rest)?)
            }
            Encoding::Protobuf => {
                let mut fields = protobuf::Fields::new(&rest);
                let item = loop {
                    match fields.next()? {
                        Some((2, value)) => break rest.slice_ref(value.bytes()?),
                        Some(_) => {}
                        None => return Ok(None),
                    }
                };
                rest = rest.slice_ref(fields.rest());
                item
            }
        };
        self.state = State::Rest(rest, left);
        Ok(Some(item))
    }

    /// Behind the start of the list, and for CBOR how many items there are.
    fn start(&self, items: Bytes) -> Result<Option<(Bytes, u64)>, EventError> {
        match self.encoding {
            Encoding::Protobuf => Ok(Some((items, 0))),
            Encoding::Json => match items.first() {
                Some(b'[') => Ok(Some((items.slice(1..), 0))),
                Some(b'n') => Ok(None),
                _ => Err(json::malformed("the items should be an array")),
            },
            Encoding::Cbor => {
                let head = cbor::head(&items)?;
                match (head.major, head.info) {
                    (4, _) => Ok(Some((items.slice(head.len..), head.argument))),
                    (7, 22) => Ok(None),
                    _ => Err(cbor::malformed("the items should be an array")),
                }
            }
        }
    }
}

impl Iterator for Items {
    type Item = Result<Object, EventError>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.item();
        if item.is_err() {
            self.state = State::End;
        }
        let object = item.transpose()?.map(|bytes| Object {
            encoding: self.encoding,
            bytes,
            of_list: self.of_list.clone(),
        });
        Some(object)
    }
}
