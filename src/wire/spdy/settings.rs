//! SETTINGS: parameters of the connection (section 2.6.4).

use bytes::{BufMut, BytesMut};

use super::{SpdyError, head::Head, u32_at};

/// Forget what earlier SETTINGS said.
const FLAG_CLEAR: u8 = 0x01;

/// Parameters of the connection. No implementation in Kubernetes sends it or heeds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Forget what earlier SETTINGS said.
    pub clear: bool,
    /// The parameters, in the sender's order.
    pub settings: Vec<Setting>,
}

/// One parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Whether the value is to be kept, or was.
    pub flags: u8,
    /// Which parameter; 24 bits.
    pub id: u32,
    /// Its value.
    pub value: u32,
}

impl Settings {
    pub(super) const KIND: u16 = 4;

    pub(super) fn parse(flags: u8, body: &[u8]) -> Result<Self, SpdyError> {
        let malformed = SpdyError::Length {
            frame: "SETTINGS",
            length: body.len(),
        };
        let Some((_, pairs)) = body.split_at_checked(4) else {
            return Err(malformed);
        };
        // The body is a count and that many pairs of 8 bytes (section 2.6.4); comparing before
        // allocating keeps a lying count harmless.
        if pairs.len() as u64 != u64::from(u32_at(body, 0)) * 8 {
            return Err(malformed);
        }
        let settings = pairs
            .chunks_exact(8)
            .map(|pair| Setting {
                flags: pair[0],
                id: u32_at(pair, 0) & 0x00ff_ffff,
                value: u32_at(pair, 4),
            })
            .collect();
        Ok(Self {
            clear: flags & FLAG_CLEAR != 0,
            settings,
        })
    }

    /// Writes the frame to the end of `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        let flags = if self.clear { FLAG_CLEAR } else { 0 };
        Head::encode_control(Self::KIND, flags, 4 + 8 * self.settings.len(), out);
        out.put_u32(self.settings.len() as u32);
        for setting in &self.settings {
            out.put_u32(u32::from(setting.flags) << 24 | setting.id & 0x00ff_ffff);
            out.put_u32(setting.value);
        }
    }
}
