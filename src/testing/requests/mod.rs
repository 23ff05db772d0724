//! What a request says: in flow a head and a body, out come the verb, what it is about, the objects
//! that were sent, and what is asked of the answer.

pub(super) mod body;
pub(super) mod gojson;
pub(super) mod negotiation;
pub(super) mod pages;
pub(super) mod selector;
pub(super) mod target;
