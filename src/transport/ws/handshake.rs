//! What both halves of the WebSocket handshake have in common: in flow the headers of either, out
//! comes whether they are of one.

use http::{
    HeaderMap, HeaderName,
    header::{CONNECTION, UPGRADE},
};

/// Whether the connection is to become, or becomes, a WebSocket (RFC 6455, sections 4.1 and 4.2.1).
pub(crate) fn upgrades(headers: &HeaderMap) -> bool {
    let has = |name: HeaderName, token: &str| {
        let lines = headers.get_all(name).into_iter();
        lines
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(token))
    };
    has(UPGRADE, "websocket") && has(CONNECTION, "upgrade")
}
