//! The subprotocols of port-forward.

use crate::{session::subprotocol, wire::channel::Encoding};

/// A subprotocol of port-forward.
///
/// ```
/// use kubewire::session::port_forward::ForwardProtocol;
///
/// let protocol = ForwardProtocol::Spdy;
/// assert_eq!(ForwardProtocol::from_name(protocol.name()), Some(protocol));
/// assert!(protocol.encoding().is_none()); // it has streams, not channels
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ForwardProtocol {
    /// `SPDY/3.1+portforward.k8s.io`: a SPDY connection in binary messages. API servers have it
    /// from 1.31 on, or from 1.30 behind a feature gate
    /// (`k8s.io/apimachinery/pkg/util/portforward/constants.go`).
    Spdy,
    /// `v4.channel.k8s.io`: one connection a port, in channels. Every kubelet has it.
    V4,
    /// `v4.base64.channel.k8s.io`: [`V4`](Self::V4) in text messages.
    V4Base64,
}

impl ForwardProtocol {
    /// Every subprotocol.
    pub const ALL: [Self; 3] = [Self::Spdy, Self::V4, Self::V4Base64];

    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Spdy => "SPDY/3.1+portforward.k8s.io",
            Self::V4 => "v4.channel.k8s.io",
            Self::V4Base64 => "v4.base64.channel.k8s.io",
        }
    }

    /// The subprotocol of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|protocol| protocol.name() == name)
    }

    /// How the payloads of channels are written; `None` where there are none.
    pub const fn encoding(self) -> Option<Encoding> {
        match self {
            Self::Spdy => None,
            Self::V4 => Some(Encoding::Binary),
            Self::V4Base64 => Some(Encoding::Base64),
        }
    }

    /// The server's choice: the first in the client's order that it supports. Servers treat a
    /// missing offer as [`V4`](Self::V4)
    /// (`cri-streaming/pkg/streaming/portforward/websocket.go`).
    pub fn choose(offer: &str, supported: &[Self]) -> Option<Self> {
        subprotocol::choose(offer, supported, Self::V4, Self::from_name)
    }
}

impl std::fmt::Display for ForwardProtocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_order_decides() {
        let all = ForwardProtocol::ALL;
        let choose = ForwardProtocol::choose;
        assert_eq!(
            choose("v4.channel.k8s.io, SPDY/3.1+portforward.k8s.io", &all),
            Some(ForwardProtocol::V4)
        );
        assert_eq!(
            choose("nonsense,SPDY/3.1+portforward.k8s.io", &all),
            Some(ForwardProtocol::Spdy)
        );
        assert_eq!(choose("SPDY/3.1+portforward.k8s.io", &all[1..]), None);
        assert_eq!(choose("", &all), Some(ForwardProtocol::V4));
    }
}
