/// Which end of a connection a session speaks for.
///
/// Both ends run the same state machines; the role decides which channels are read and which are
/// written, and who masks WebSocket frames.
///
/// ```
/// use kubewire::{Role, wire::websocket::Decoder};
///
/// // What a client sends is masked, what a server sends is not.
/// let mut masked = bytes::BytesMut::from(&b"\x82\x80\0\0\0\0"[..]);
/// assert!(Decoder::new(Role::Server, 1024).decode(&mut masked.clone()).is_ok());
/// assert!(Decoder::new(Role::Client, 1024).decode(&mut masked).is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The end that asked: an exec client, a port-forward tool, a controller.
    Client,
    /// The end that answers: an API server, a kubelet, a gateway.
    Server,
}
