//! The spans of the verbs: in flows what is asked, out comes a span with the names that
//! OpenTelemetry has for it. What may be secret, a command among it, is in none.

use tracing::{Span, field::Empty};

use super::{Client, Pod};
use crate::{Error, Result};

/// A span for something that one pod does.
macro_rules! of_pod {
    ($name:literal, $pod:expr) => {
        tracing::info_span!(
            $name,
            server.address = $pod.client().http().server_address(),
            k8s.namespace.name = $pod.namespace(),
            k8s.pod.name = $pod.name(),
            k8s.container.name = Empty,
            http.response.status_code = Empty,
            process.exit.code = Empty,
        )
    };
}

pub(super) fn exec(pod: &Pod) -> Span {
    of_pod!("exec", pod)
}

pub(super) fn attach(pod: &Pod) -> Span {
    of_pod!("attach", pod)
}

pub(super) fn logs(pod: &Pod) -> Span {
    of_pod!("logs", pod)
}

pub(super) fn port_forward(client: &Client, namespace: &str) -> Span {
    tracing::info_span!(
        "port_forward",
        server.address = client.http().server_address(),
        k8s.namespace.name = namespace,
        k8s.pod.name = Empty,
        http.response.status_code = Empty,
    )
}

pub(super) fn watch(client: &Client, resource: &str, namespace: Option<&str>) -> Span {
    tracing::info_span!(
        "watch",
        server.address = client.http().server_address(),
        k8s.namespace.name = namespace,
        resource,
        http.response.status_code = Empty,
    )
}

/// Records the code of the answer to a handshake, where there was one.
pub(super) fn record_opened<T>(span: &Span, opened: &Result<T>) {
    let code = match opened {
        Ok(_) => Some(101),
        Err(Error::Api(refusal)) => Some(refusal.status.code),
        Err(_) => None,
    };
    span.record("http.response.status_code", code);
}
