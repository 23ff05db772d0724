//! A list in protobuf: in goes what has arrived of it, out comes the next piece, a field of its
//! envelope or of the list itself.

use super::{
    super::{Encoding, EventError, TypeMeta, cursor::Members, protobuf},
    ListDecoder, Step, Taken,
};

impl ListDecoder {
    /// Takes the next piece of a list in protobuf.
    pub(super) fn protobuf(&mut self) -> Result<Taken, EventError> {
        let step = self.step.clone();
        if step == Step::Start {
            // Without the magic bytes the list stands alone; `k` would be a group there.
            if self.carry.first().or(self.chunk.first()) != Some(&b'k') {
                self.step = Step::Message(None);
                return Ok(Taken::Other);
            }
            return match self.piece(|_, data| Ok((data.len() >= 4).then_some(4)))? {
                None => Ok(Taken::Incomplete),
                Some(magic) if *magic == *protobuf::MAGIC => {
                    self.step = Step::Envelope;
                    Ok(Taken::Other)
                }
                Some(_) => {
                    Err(Encoding::Protobuf.malformed("a list begins with other magic bytes"))
                }
            };
        }
        if step == Step::Message(Some(0)) {
            self.step = Step::Envelope;
            return Ok(Taken::Other);
        }
        let in_envelope = step == Step::Envelope;
        let piece = self.piece(|_, data| {
            let Some(extent) = protobuf::Extent::of(data)? else {
                return Ok(None);
            };
            if matches!(extent.number, 1 | 2) && !extent.delimited {
                return Err(Encoding::Protobuf.malformed("a field of a list is no message"));
            }
            // runtime.Unknown: raw = 2. It is gone into, and not waited for.
            if in_envelope && extent.number == 2 {
                return Ok(Some(extent.content));
            }
            Ok((extent.end <= data.len()).then_some(extent.end))
        })?;
        let Some(piece) = piece else {
            return Ok(Taken::Incomplete);
        };
        let extent = protobuf::Extent::of(&piece)?;
        let (number, content, end) = extent.map_or((0, 0, 0), |e| (e.number, e.content, e.end));
        if in_envelope {
            match number {
                1 => {
                    let [api_version, kind] = protobuf::type_meta(&piece[content..end])?;
                    self.meta = TypeMeta {
                        api_version: protobuf::text(api_version)?.to_owned(),
                        kind: protobuf::text(kind)?.to_owned(),
                    };
                    return self.keep_tables();
                }
                2 if self.meta.kind.is_empty() => {
                    return Err(Encoding::Protobuf.malformed("a list does not say its kind first"));
                }
                2 => self.step = Step::Message(Some((end - content) as u64)),
                _ => {}
            }
            return Ok(Taken::Other);
        }
        if let Step::Message(Some(left)) = &mut self.step {
            let what = "a field is longer than its list";
            *left = left
                .checked_sub(piece.len() as u64)
                .ok_or(Encoding::Protobuf.malformed(what))?;
        }
        match number {
            1 => {
                let mut fields = Members::new(self.encoding, &piece)?;
                if let Some((_, metadata)) = fields.next()? {
                    self.list.read(metadata)?;
                }
                Ok(Taken::Other)
            }
            2 => {
                self.begin_items();
                Ok(Taken::Item(piece.slice(content..)))
            }
            _ => Ok(Taken::Other),
        }
    }
}
