/// Which end of a connection a session speaks for.
///
/// Both ends run the same state machines; the role decides which channels are read and which are
/// written, and who masks WebSocket frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The end that asked: an exec client, a port-forward tool, a controller.
    Client,
    /// The end that answers: an API server, a kubelet, a gateway.
    Server,
}
