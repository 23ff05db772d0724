//! The answer to a list request, opened while it arrives and without parsing its items.
//!
//! In go the chunks of a response body; out comes each item as an [`Object`], a slice of the chunk
//! that it arrived in, and at the end the list's resourceVersion and what continues it.

mod protobuf;

use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};

use super::{
    Encoding, EventError, Object, TypeMeta, cbor,
    cursor::{API_VERSION, Field, KIND, METADATA, Members, Value},
    json::{self, EndOfValue},
    keep,
};
use crate::{limits, wire::behind};

/// `items`, of every list.
const ITEMS: Field = Field("items", 2);
// `ListMeta` and `ShardInfo` in `k8s.io/apimachinery/pkg/apis/meta/v1/generated.proto`.
const RESOURCE_VERSION: Field = Field("resourceVersion", 2);
const CONTINUE: Field = Field("continue", 3);
const REMAINING: Field = Field("remainingItemCount", 4);
const SHARD_INFO: Field = Field("shardInfo", 5);
const SELECTOR: Field = Field("selector", 1);

/// What a list, or one page of it, says beside its items.
///
/// ```
/// use kubewire::wire::watch::{Encoding, ListDecoder};
///
/// let mut decoder = ListDecoder::new(Encoding::Json);
/// decoder.push(r#"{"metadata":{"resourceVersion":"7","continue":"abc"},"items":[]}"#.into());
/// assert!(decoder.next_item()?.is_none());
/// let list = decoder.finish()?;
/// assert_eq!((&*list.resource_version, &*list.continue_token), ("7", "abc"));
/// # Ok::<(), kubewire::wire::watch::EventError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct List {
    /// The version at which the items were read: where a watch begins.
    pub resource_version: String,
    /// What fetches the next page; empty on the last.
    pub continue_token: String,
    /// How many items follow on further pages, where the server says.
    pub remaining_item_count: Option<u64>,
    /// `metadata.shardInfo.selector`: the shard that the server confined the list to (KEP-5866).
    /// Empty if the server knows nothing of shards.
    pub shard_selector: String,
}

impl List {
    fn read(&mut self, metadata: Value<'_>) -> Result<(), EventError> {
        let mut members = metadata.members()?;
        while let Some((key, value)) = members.next()? {
            if key.is(RESOURCE_VERSION) {
                self.resource_version = value.text()?.into_owned();
            } else if key.is(CONTINUE) {
                self.continue_token = value.text()?.into_owned();
            } else if key.is(REMAINING) {
                self.remaining_item_count = u64::try_from(value.integer()?).ok();
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
}

/// Takes the answer to a list request apart as it arrives.
///
/// An item is handed out once its last byte is there, and no more than one item is kept. But where
/// the list's kind stands behind the items and they do not say theirs, the whole answer is kept: in
/// CBOR, and in JSON of servers that sort names. So is a `Table`, which has rows and no items and is
/// one object. (Lists of custom resources in JSON are sorted, too, but say the kind of each.)
///
/// ```
/// use kubewire::wire::watch::{Encoding, ListDecoder};
///
/// let mut decoder = ListDecoder::new(Encoding::Json);
/// decoder.push(r#"{"kind":"PodList","items":[{"metadata":{"name":"a"}},{"metad"#.into());
/// let item = decoder.next_item()?.expect("the first is complete");
/// assert_eq!((&*item.metadata()?.kind()?, &*item.metadata()?.name()?), ("Pod", "a"));
/// assert!(decoder.next_item()?.is_none());
/// decoder.push(r#"ata":{}}],"metadata":{"resourceVersion":"7"}}"#.into());
/// assert!(decoder.next_item()?.is_some() && decoder.next_item()?.is_none());
/// assert_eq!(decoder.finish()?.resource_version, "7");
/// # Ok::<_, kubewire::wire::watch::EventError>(())
/// ```
#[derive(Debug)]
pub struct ListDecoder {
    encoding: Encoding,
    /// Bytes of an item, or of what stands around the items.
    bound: usize,
    /// Bytes of an answer that has to be kept whole.
    whole: usize,
    /// What of the last chunk has not been taken.
    chunk: Bytes,
    /// The start of a piece whose end had not arrived.
    carry: BytesMut,
    end: EndOfValue,
    /// All that came before the items: a `Table` is whole with it.
    head: BytesMut,
    begun: bool,
    /// It has said which items it has, if none.
    has_items: bool,
    /// What was kept whole is gone through for its items.
    reread: bool,
    step: Step,
    list: List,
    meta: TypeMeta,
    of_list: Option<Arc<TypeMeta>>,
    failed: Option<EventError>,
}

/// Where in the answer the next piece lies.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// Before anything.
    Start,
    /// JSON: before a member or the end of the list; whether one came before.
    Member {
        comma: bool,
    },
    /// JSON: behind a name.
    Colon(Vec<u8>),
    /// JSON: before a value.
    Value(Vec<u8>),
    /// JSON: in the items.
    Items {
        comma: bool,
    },
    /// Protobuf: in the envelope.
    Envelope,
    /// Protobuf: in the list itself, with so many bytes to come; without envelope, to the end.
    Message(Option<u64>),
    Whole,
    /// It has been taken apart whole: an item each, then the end.
    Kept(Vec<Bytes>),
    /// Behind it.
    End,
}

impl ListDecoder {
    /// A decoder of items of at most [`WATCH_EVENT`](limits::WATCH_EVENT) bytes, and of
    /// [`LIST_BODY`](limits::LIST_BODY) in all where all has to be kept.
    pub fn new(encoding: Encoding) -> Self {
        Self::with_bounds(encoding, limits::WATCH_EVENT, limits::LIST_BODY)
    }

    /// A decoder of items of at most `item` bytes, and of `whole` in all where all has to be kept.
    pub fn with_bounds(encoding: Encoding, item: usize, whole: usize) -> Self {
        Self {
            encoding,
            bound: item,
            whole,
            chunk: Bytes::new(),
            carry: BytesMut::new(),
            end: EndOfValue::default(),
            head: BytesMut::new(),
            begun: false,
            // Protobuf leaves out what is empty.
            has_items: encoding == Encoding::Protobuf,
            reread: false,
            step: match encoding {
                Encoding::Cbor => Step::Whole,
                _ => Step::Start,
            },
            list: List::default(),
            meta: TypeMeta::default(),
            of_list: None,
            failed: None,
        }
    }

    /// Takes the next chunk of the body. Take out all items first.
    pub fn push(&mut self, chunk: Bytes) {
        self.chunk = behind(&self.chunk, chunk);
    }

    /// Bytes that have arrived and are not part of an item handed out.
    pub fn buffered(&self) -> usize {
        self.chunk.len() + self.carry.len() + self.head.len()
    }

    /// The next item; `None` if it has not arrived whole.
    ///
    /// # Errors
    ///
    /// If the list is malformed or something exceeds its bound. There is nothing more then.
    pub fn next_item(&mut self) -> Result<Option<Object>, EventError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let item = self.item();
        if let Err(error) = &item {
            self.failed = Some(error.clone());
            (self.chunk, self.carry) = (Bytes::new(), BytesMut::new());
        }
        Ok(item?.map(|bytes| Object {
            encoding: self.encoding,
            bytes,
            of_list: self.of_list.clone(),
        }))
    }

    /// The body has ended. Take out the items before this, and again after it: those of a list
    /// that had to be kept whole come then.
    ///
    /// # Errors
    ///
    /// [`EventError::Cut`] if it ended in the midst of the list, and as
    /// [`next_item`](Self::next_item).
    pub fn finish(&mut self) -> Result<List, EventError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let between = self.carry.is_empty() && self.chunk.is_empty();
        match self.step {
            Step::Whole => self.open()?,
            _ if self.reread => {}
            Step::Kept(_) | Step::End => {}
            Step::Envelope | Step::Message(None) if between => {}
            _ => return Err(EventError::Cut),
        }
        Ok(self.list.clone())
    }

    /// Whether what has [ended](Self::finish) was a list: it had items, if none.
    pub fn has_items(&self) -> bool {
        self.has_items
    }

    /// The whole answer as an object, if it is a `Table`: once it has been
    /// [finished](Self::finish).
    pub fn table(&self) -> Option<Object> {
        let is_table = self.step == Step::Kept(Vec::new()) && self.meta.kind == "Table";
        is_table.then(|| Object::new(self.encoding, self.chunk.clone()))
    }

    /// Opens an answer that was kept whole.
    fn open(&mut self) -> Result<(), EventError> {
        self.chunk = std::mem::take(&mut self.carry).freeze();
        let body = self.chunk.clone();
        let mut items = Vec::new();
        let envelope = super::protobuf::Envelope::open(self.encoding, &body)?;
        let mut members = Members::new(self.encoding, envelope.message)?;
        while let Some((key, value)) = members.next()? {
            if key.is(API_VERSION) {
                self.meta.api_version = value.text()?.into_owned();
            } else if key.is(KIND) {
                self.meta.kind = value.text()?.into_owned();
            } else if key.is(METADATA) {
                self.list.read(value)?;
            } else if let (true, Value::Cbor(mut data)) = (key.is(ITEMS), value) {
                self.has_items = true;
                let head = cbor::head(data)?;
                let count = match (head.major, head.info) {
                    (4, _) => head.argument,
                    (7, 22) => 0,
                    _ => return Err(Encoding::Cbor.malformed("the items should be an array")),
                };
                data = &data[head.len..];
                for _ in 0..count {
                    let (item, rest) = data.split_at(cbor::skip(data)?);
                    items.push(body.slice_ref(item));
                    data = rest;
                }
            }
        }
        if self.encoding == Encoding::Json && self.meta.kind != "Table" {
            (self.reread, self.step) = (true, Step::Start);
            return Ok(());
        }
        self.begin_items();
        items.reverse();
        self.step = Step::Kept(items);
        Ok(())
    }

    /// The kind of the items is known from here on.
    fn begin_items(&mut self) {
        if self.begun {
            return;
        }
        // The items of a `PodList` are Pods and do not say so; those of a plain `List` do.
        let kind = self.meta.kind.strip_suffix("List").unwrap_or_default();
        if self.of_list.is_none() && !kind.is_empty() {
            self.of_list = Some(Arc::new(TypeMeta {
                api_version: self.meta.api_version.clone(),
                kind: kind.into(),
            }));
        }
        self.head = BytesMut::new();
        self.begun = true;
    }

    fn item(&mut self) -> Result<Option<Bytes>, EventError> {
        loop {
            let item = match &mut self.step {
                Step::Kept(items) => return Ok(items.pop()),
                Step::Whole => {
                    let bound = self.whole;
                    keep(&mut self.carry, &self.chunk, bound);
                    self.chunk = Bytes::new();
                    if self.carry.len() > bound {
                        return Err(EventError::TooLarge { bound });
                    }
                    return Ok(None);
                }
                _ if self.chunk.is_empty() => return Ok(None),
                _ => match self.encoding {
                    Encoding::Protobuf => self.protobuf()?,
                    _ => self.json()?,
                },
            };
            match item {
                Taken::Item(item) => return Ok(Some(item)),
                Taken::Other if self.head.len() > self.bound => {
                    return Err(EventError::TooLarge { bound: self.bound });
                }
                Taken::Other => {}
                Taken::Incomplete => return Ok(None),
            }
        }
    }

    fn json(&mut self) -> Result<Taken, EventError> {
        if self.carry.is_empty() {
            self.skip(json::skip_space(&self.chunk, 0));
        }
        let next = match self.carry.first().or(self.chunk.first()) {
            Some(next) => *next,
            None => return Ok(Taken::Incomplete),
        };
        match (std::mem::replace(&mut self.step, Step::End), next) {
            (Step::Start, b'{') => self.step(1, Step::Member { comma: false }),
            (Step::Member { .. }, b'}') => self.step(1, Step::End),
            (Step::Items { .. }, b']') => self.step(1, Step::Member { comma: true }),
            (Step::Member { comma: true }, b',') => self.step(1, Step::Member { comma: false }),
            (Step::Items { comma: true }, b',') => self.step(1, Step::Items { comma: false }),
            (Step::Member { comma: false }, b'"') => {
                let Some(name) = self.piece(EndOfValue::find)? else {
                    self.step = Step::Member { comma: false };
                    return Ok(Taken::Incomplete);
                };
                let name = json::text(&name)?.into_owned().into_bytes();
                self.step = Step::Colon(name);
                Ok(Taken::Other)
            }
            (Step::Colon(name), b':') => self.step(1, Step::Value(name)),
            (Step::Value(name), b'[') if name == ITEMS.0.as_bytes() => {
                self.has_items = true;
                // Otherwise the first item tells.
                if self.reread || !self.meta.kind.is_empty() {
                    self.begin_items();
                }
                self.step(1, Step::Items { comma: false })
            }
            (Step::Value(name), b'"' | b'{' | b'[' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => {
                let Some(piece) = self.piece(EndOfValue::find)? else {
                    self.step = Step::Value(name);
                    return Ok(Taken::Incomplete);
                };
                self.step = Step::Member { comma: true };
                let value = Value::Json(&piece);
                match &*name {
                    b"apiVersion" => self.meta.api_version = value.text()?.into_owned(),
                    b"kind" => self.meta.kind = value.text()?.into_owned(),
                    b"metadata" => self.list.read(value)?,
                    b"items" if *piece != *b"null" => {
                        return Err(Encoding::Json.malformed("the items should be an array"));
                    }
                    b"items" => self.has_items = true,
                    _ => {}
                }
                self.keep_tables()
            }
            (Step::Items { comma: false }, b'{') => {
                let piece = self.piece(EndOfValue::find)?;
                let comma = piece.is_some();
                self.step = Step::Items { comma };
                match piece {
                    None => Ok(Taken::Incomplete),
                    Some(item) if !self.begun && !has_kind(&item)? => {
                        self.keep_whole();
                        Ok(Taken::Other)
                    }
                    Some(item) => {
                        self.begin_items();
                        Ok(Taken::Item(item))
                    }
                }
            }
            _ => Err(Encoding::Json.malformed("a list does not go on like this")),
        }
    }

    /// A `Table` has no items to hand out.
    fn keep_tables(&mut self) -> Result<Taken, EventError> {
        if self.meta.kind == "Table" {
            self.keep_whole();
        }
        Ok(Taken::Other)
    }

    fn keep_whole(&mut self) {
        self.carry = std::mem::take(&mut self.head);
        self.step = Step::Whole;
    }

    /// Goes on behind `len` bytes of the chunk.
    fn step(&mut self, len: usize, step: Step) -> Result<Taken, EventError> {
        self.skip(len);
        self.step = step;
        Ok(Taken::Other)
    }

    fn skip(&mut self, len: usize) {
        let before = self.chunk.split_to(len);
        self.remember(&before);
    }

    /// What comes before the items is kept until it is known to be no `Table`.
    fn remember(&mut self, bytes: &[u8]) {
        if !self.begun {
            keep(&mut self.head, bytes, self.bound);
        }
    }

    /// The piece that `find` sees the end of, once it is there. `find` goes on where it stopped.
    fn piece(
        &mut self,
        find: impl Fn(&mut EndOfValue, &[u8]) -> Result<Option<usize>, EventError>,
    ) -> Result<Option<Bytes>, EventError> {
        /// What is copied behind the start of a piece before its end is looked for again: little,
        /// so that no piece keeps a large buffer alive.
        const STEP: usize = 4096;
        let bound = self.bound;
        let mut piece = None;
        if self.carry.is_empty() {
            match find(&mut self.end, &self.chunk)? {
                Some(end) => piece = Some(self.chunk.split_to(end)),
                None => {
                    keep(&mut self.carry, &self.chunk, bound);
                    self.chunk = Bytes::new();
                }
            }
        }
        while piece.is_none() && !self.chunk.is_empty() && self.carry.len() <= bound {
            let before = self.carry.len();
            let take = self.chunk.len().min(STEP);
            keep(&mut self.carry, &self.chunk[..take], bound);
            match find(&mut self.end, &self.carry)? {
                Some(end) => {
                    self.chunk.advance(end - before);
                    self.carry.truncate(end);
                    piece = Some(self.carry.split().freeze());
                }
                None => self.chunk.advance(take),
            }
        }
        if piece.as_ref().map_or(self.carry.len(), Bytes::len) > bound {
            return Err(EventError::TooLarge { bound });
        }
        if let Some(piece) = &piece {
            self.end = EndOfValue::default();
            self.remember(piece);
        }
        Ok(piece)
    }
}

fn has_kind(item: &[u8]) -> Result<bool, EventError> {
    let mut members = Value::Json(item).members()?;
    while let Some((key, value)) = members.next()? {
        if key.is(KIND) {
            return Ok(!value.text()?.is_empty());
        }
    }
    Ok(false)
}

/// What a step gave.
enum Taken {
    Item(Bytes),
    Other,
    Incomplete,
}
