//! hyper's errors, by who is to blame: in they flow, out come ours.

use std::{error, fmt, io, sync::Arc};

use crate::{
    Error,
    error::{CallerError, NetworkError, PeerError},
    limits,
};

const NO_HTTP: &str = "its answer does not begin as one of HTTP/1.1 does; perhaps it speaks TLS, \
                       and its URL begins with https://, or it is no HTTP server";

const BROKEN_BODY: &str = "the lengths of the parts of its body are not written as HTTP/1.1 has it";

/// What is not HTTP is the peer's fault, and a body that fails as it is sent the caller's; all else
/// is a connection that was lost.
pub(crate) fn blame(error: hyper::Error) -> Error {
    if error.is_user() && error::Error::source(&error).is_some() {
        return CallerError::Stream(Arc::new(io::Error::other(Innermost(error)))).into();
    }
    // Of its pings over HTTP/2; it has no other deadline here.
    if error.is_timeout() {
        let silent = limits::HTTP2_PING + limits::HTTP2_PONG;
        return NetworkError::Silent { silent }.into();
    }
    if error.is_parse() {
        // Of the kinds of parse errors hyper tells its words alone.
        let problem = match error.to_string() {
            words if words.contains("HTTP version") => NO_HTTP.to_owned(),
            words => words,
        };
        return PeerError::Http(problem).into();
    }
    if let Some(broken) = causes(&error).find_map(is_broken_http2) {
        return PeerError::Http(broken).into();
    }
    let cause = causes(&error).find_map(|cause| cause.downcast_ref::<io::Error>());
    // The latter is h2's for a connection that is over, whoever ended it.
    let over = |cause: &(dyn error::Error + 'static)| {
        let h2 = cause
            .downcast_ref::<h2::Error>()
            .and_then(h2::Error::get_io);
        h2.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    if error.is_incomplete_message() || causes(&error).any(over) {
        let early = "the server, or something before it, closed it before it had answered";
        return Error::lost(io::Error::new(io::ErrorKind::UnexpectedEof, early));
    }
    if let Some(ended) = causes(&error).find_map(by_the_server) {
        return Error::lost(io::Error::other(ended));
    }
    if let Some(known) = cause.and_then(Error::of_io) {
        return known.clone();
    }
    let kind = cause.map_or(io::ErrorKind::Other, io::Error::kind);
    // TLS, too, has errors of these kinds.
    if matches!(
        kind,
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData
    ) && cause.is_some_and(|cause| cause.to_string().contains("chunk"))
    {
        return PeerError::Http(BROKEN_BODY.to_owned()).into();
    }
    Error::lost(io::Error::new(kind, Innermost(error)))
}

/// Whether the server says that it has done nothing about this request, so that it may be sent
/// again whatever it is (RFC 9113, section 8.7): its stream is above the last one that a GOAWAY
/// names, or was refused.
pub(crate) fn is_unprocessed(error: &hyper::Error) -> bool {
    let mut causes = causes(error);
    // h2 fails those streams alone with the peer's GOAWAY.
    causes.any(|cause| match cause.downcast_ref::<h2::Error>() {
        Some(error) => {
            error.is_remote()
                && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM))
        }
        None => false,
    })
}

/// What is wrong with frames that are none of HTTP/2, in the words of h2: it resets the stream, or
/// goes away, by itself.
fn is_broken_http2(cause: &(dyn error::Error + 'static)) -> Option<String> {
    let error = cause.downcast_ref::<h2::Error>()?;
    let ended = matches!(
        error.reason(),
        None | Some(h2::Reason::NO_ERROR | h2::Reason::CANCEL)
    );
    (error.is_library() && !ended).then(|| error.to_string())
}

/// How the server has ended a stream of HTTP/2, or the connection, by the name of its code (RFC
/// 9113, section 7).
fn by_the_server(cause: &(dyn error::Error + 'static)) -> Option<String> {
    let error = cause.downcast_ref::<h2::Error>()?;
    let what = match error.is_go_away() {
        true => "closes the connection",
        false => "has reset the stream",
    };
    let reason = error.reason().filter(|_| error.is_remote())?;
    Some(format!("the server {what}: {reason:?}"))
}

fn causes(error: &hyper::Error) -> impl Iterator<Item = &(dyn error::Error + 'static)> {
    let first: &(dyn error::Error + 'static) = error;
    std::iter::successors(Some(first), |error| error.source())
}

#[derive(Debug)]
struct Innermost(hyper::Error);

impl fmt::Display for Innermost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match causes(&self.0).last() {
            Some(cause) => write!(f, "{cause}"),
            None => write!(f, "{}", self.0),
        }
    }
}

impl error::Error for Innermost {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(&self.0)
    }
}
