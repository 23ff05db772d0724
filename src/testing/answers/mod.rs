//! What a client is told: in flow objects, out come bodies in the encoding and the form that it
//! accepts, and messages where it has a WebSocket.

pub(super) mod cells;
pub(super) mod encoding;
pub(super) mod look;
pub(super) mod messages;
pub(super) mod streaming;
pub(super) mod table;
