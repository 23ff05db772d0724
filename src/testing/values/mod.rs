//! The parts of objects as values: in flow what a client sent and texts of the tables, out come fields,
//! quantities and what a text says of an object.

pub(super) mod json;
pub(super) mod paths;
pub(super) mod quantity;
pub(super) mod texts;
