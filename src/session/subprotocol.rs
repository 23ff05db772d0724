//! The subprotocols of exec and attach: their names, who prefers which, and what each can do.
//!
//! In flow the values of `Sec-WebSocket-Protocol` header lines; out comes the [`Subprotocol`]
//! that both ends speak. The names are those of
//! `k8s.io/apimachinery/pkg/util/remotecommand/constants.go`, their choice that of
//! `k8s.io/streaming/pkg/httpstream/wsstream/conn.go`.

use crate::wire::channel::Encoding;

/// A subprotocol of exec and attach.
///
/// Versions 2 and 3 exist as names only: WebSocket servers do not accept them.
///
/// ```
/// use kubewire::session::Subprotocol;
///
/// // What a server chooses, and what the client makes of its answer.
/// let offer = "v5.channel.k8s.io, v4.channel.k8s.io";
/// let chosen = Subprotocol::choose(offer, &[Subprotocol::V4]);
/// assert_eq!(chosen, Some(Subprotocol::V4));
/// let answer = Subprotocol::accept(Some("v4.channel.k8s.io"), &Subprotocol::DEFAULT);
/// assert_eq!(answer, Ok(Subprotocol::V4));
/// assert!(!Subprotocol::V4.has_half_close());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Subprotocol {
    /// `v5.channel.k8s.io`: a Status at the end, and stdin can be closed by itself. API servers
    /// have it from 1.30 on, or from 1.29 behind a feature gate.
    V5,
    /// `v4.channel.k8s.io`: a Status at the end. Every kubelet has it.
    V4,
    /// `v4.base64.channel.k8s.io`: [`V4`](Self::V4) in text messages.
    V4Base64,
    /// `channel.k8s.io`: text on failure and nothing on success.
    V1,
    /// `base64.channel.k8s.io`: [`V1`](Self::V1) in text messages.
    V1Base64,
    /// No subprotocol at all, which servers treat as [`V1`](Self::V1).
    Unnamed,
}

impl Subprotocol {
    /// What a client offers unless told otherwise, in order of preference. Old API servers hand
    /// the offer on to the kubelet, which takes the second.
    pub const DEFAULT: [Self; 2] = [Self::V5, Self::V4];

    /// Every subprotocol that has a name.
    pub const NAMED: [Self; 5] = [Self::V5, Self::V4, Self::V4Base64, Self::V1, Self::V1Base64];

    /// Its name on the wire; empty for [`Unnamed`](Self::Unnamed).
    pub const fn name(self) -> &'static str {
        match self {
            Self::V5 => "v5.channel.k8s.io",
            Self::V4 => "v4.channel.k8s.io",
            Self::V4Base64 => "v4.base64.channel.k8s.io",
            Self::V1 => "channel.k8s.io",
            Self::V1Base64 => "base64.channel.k8s.io",
            Self::Unnamed => "",
        }
    }

    /// The subprotocol of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMED
            .into_iter()
            .find(|protocol| protocol.name() == name)
    }

    /// Whether a client can end stdin while output goes on (`CLOSE`, version 5 only).
    pub const fn has_half_close(self) -> bool {
        matches!(self, Self::V5)
    }

    /// Whether the work ends with a Status, successes too.
    pub const fn has_status(self) -> bool {
        matches!(self, Self::V5 | Self::V4 | Self::V4Base64)
    }

    /// Whether nothing of any other channel can follow the Status. Only version 5 says so: its
    /// server sends the Status after it has copied every stream
    /// (`k8s.io/apiserver/pkg/util/proxy/streamtranslator.go`).
    pub const fn status_is_last(self) -> bool {
        matches!(self, Self::V5)
    }

    /// How payloads are written.
    pub const fn encoding(self) -> Encoding {
        match self {
            Self::V4Base64 | Self::V1Base64 => Encoding::Base64,
            _ => Encoding::Binary,
        }
    }

    /// The value of the one `Sec-WebSocket-Protocol` line that offers `protocols`; `None` where
    /// none has a name. Servers read only the first such line
    /// (`golang.org/x/net/websocket/hybi.go`), so there must be just one.
    pub fn offer(protocols: &[Self]) -> Option<String> {
        let names: Vec<_> = protocols
            .iter()
            .map(|p| p.name())
            .filter(|name| !name.is_empty())
            .collect();
        (!names.is_empty()).then(|| names.join(", "))
    }

    /// The server's choice: [`V5`](Self::V5) wherever it is offered, which an API server looks for
    /// alone (`k8s.io/apimachinery/pkg/util/httpstream/wsstream/conn.go`), else the first in the
    /// client's order; of those that `supported` contains. An empty offer chooses
    /// [`Unnamed`](Self::Unnamed); `None` means that the server must refuse.
    pub fn choose(offer: &str, supported: &[Self]) -> Option<Self> {
        let mut offered = offer.split(',').map(|name| Self::from_name(name.trim()));
        if supported.contains(&Self::V5) && offered.any(|name| name == Some(Self::V5)) {
            return Some(Self::V5);
        }
        choose(offer, supported, Self::Unnamed, Self::from_name)
    }

    /// Checks the server's choice against what was offered.
    ///
    /// # Errors
    ///
    /// The answer, if it was not offered. A missing answer is fine only where nothing was offered:
    /// the peer might not speak any of these protocols
    /// (`k8s.io/client-go/transport/websocket/roundtripper.go` checks the same).
    pub fn accept(answer: Option<&str>, offered: &[Self]) -> Result<Self, String> {
        match answer.map(str::trim) {
            None | Some("") if offered.iter().all(|p| *p == Self::Unnamed) => Ok(Self::Unnamed),
            answer => {
                let name = answer.unwrap_or_default();
                Self::from_name(name)
                    .filter(|p| offered.contains(p))
                    .ok_or_else(|| name.to_owned())
            }
        }
    }
}

/// The first protocol in the order of `offer` that `supported` contains; for an empty offer that
/// is `unnamed`.
pub(super) fn choose<P: Copy + PartialEq>(
    offer: &str,
    supported: &[P],
    unnamed: P,
    from_name: impl Fn(&str) -> Option<P>,
) -> Option<P> {
    let mut names = offer
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .peekable();
    if names.peek().is_none() {
        return supported.contains(&unnamed).then_some(unnamed);
    }
    names
        .filter_map(from_name)
        .find(|protocol| supported.contains(protocol))
}

impl std::fmt::Display for Subprotocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.name() {
            "" => "no subprotocol",
            name => name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_again() {
        for protocol in Subprotocol::NAMED {
            assert_eq!(Subprotocol::from_name(protocol.name()), Some(protocol));
        }
        assert_eq!(Subprotocol::from_name("v3.channel.k8s.io"), None);
        assert_eq!(Subprotocol::from_name(""), None);
    }

    #[test]
    fn the_client_s_order_decides() {
        use Subprotocol::*;
        let kubelet = [V4, V1, V4Base64, V1Base64, Unnamed];
        let choose = |offer| Subprotocol::choose(offer, &kubelet);
        assert_eq!(choose("v5.channel.k8s.io, v4.channel.k8s.io"), Some(V4));
        assert_eq!(choose("channel.k8s.io,v4.channel.k8s.io"), Some(V1));
        assert_eq!(choose("v5.channel.k8s.io"), None);
        let both = "v4.channel.k8s.io,v5.channel.k8s.io";
        assert_eq!(Subprotocol::choose(both, &[V4, V5]), Some(V5));
        assert_eq!(choose(""), Some(Unnamed));
        assert_eq!(Subprotocol::choose("", &[V5]), None);
    }

    #[test]
    fn an_answer_must_have_been_offered() {
        use Subprotocol::*;
        let accept = |answer| Subprotocol::accept(answer, &Subprotocol::DEFAULT);
        assert_eq!(accept(Some("v4.channel.k8s.io")), Ok(V4));
        assert_eq!(accept(Some("channel.k8s.io")), Err("channel.k8s.io".into()));
        assert_eq!(accept(None), Err(String::new()));
        assert_eq!(Subprotocol::accept(None, &[Unnamed]), Ok(Unnamed));
        assert!(Subprotocol::accept(Some("v4.channel.k8s.io"), &[Unnamed]).is_err());
    }

    #[test]
    fn an_offer_is_one_line() {
        let line = Subprotocol::offer(&Subprotocol::DEFAULT);
        assert_eq!(
            line.as_deref(),
            Some("v5.channel.k8s.io, v4.channel.k8s.io")
        );
        assert_eq!(Subprotocol::offer(&[Subprotocol::Unnamed]), None);
    }
}
