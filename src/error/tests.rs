use std::sync::Arc;

use super::*;

fn refusal(code: u16, reason: &str) -> Error {
    let status = Status::failure(code, reason, "words");
    Box::new(ApiError::new("get pod default/web", status)).into()
}

#[derive(Debug, thiserror::Error)]
#[error("the outer cause")]
struct Outer(#[source] io::Error);

#[test]
fn debug_is_what_display_says_and_the_causes_that_it_leaves_out() {
    let error = refusal(404, "NotFound");
    assert_eq!(format!("{error:?}"), error.to_string());
    let error = Error::from(NetworkError::Connect {
        address: "h:1".to_owned(),
        source: Arc::new(io::Error::other("Connection refused")),
    });
    assert_eq!(
        format!("{error:?}"),
        "cannot connect to h:1: Connection refused"
    );
    let error = Error::from(CallerError::ClientCertificate {
        certificate: "c".to_owned(),
        problem: "it is revoked".to_owned(),
        source: Arc::new(io::Error::other(Outer(io::Error::other(
            "a line\nand another",
        )))),
    });
    assert_eq!(
        format!("{error:?}"),
        "the server refuses the client certificate (c): it is revoked\n\nCaused by:\n    the \
         outer cause\n    a line\n    and another"
    );
    assert!(format!("{error:#?}").starts_with("Caller(\n"), "{error:#?}");
}

#[test]
fn predicates_say_what_to_do() {
    let network = Error::from(NetworkError::Silent {
        silent: std::time::Duration::from_secs(1),
    });
    let no_pod = Error::from(CallerError::NoPod {
        target: "service/web".to_owned(),
        namespace: "default".to_owned(),
    });
    let untrusted = Error::from(NetworkError::Certificate {
        address: "h:1".to_owned(),
        problem: CertificateProblem::Revoked,
        source: Arc::new(io::Error::other("x")),
    });
    for (error, expected) in [
        (refusal(404, "NotFound"), "not found"),
        (refusal(409, "Conflict"), "conflict"),
        (refusal(409, "AlreadyExists"), ""),
        (refusal(403, "Forbidden"), "forbidden"),
        (refusal(410, "Expired"), "gone"),
        (refusal(429, "TooManyRequests"), "retryable"),
        (refusal(500, "InternalError"), "retryable"),
        (refusal(501, "NotImplemented"), ""),
        (refusal(503, "ServiceUnavailable"), "retryable"),
        (refusal(401, "Unauthorized"), ""),
        (network, "retryable"),
        (no_pod, "retryable"),
        (untrusted, ""),
        (CallerError::Ended.into(), ""),
        (PeerError::Base64.into(), ""),
    ] {
        let told: Vec<_> = [
            ("not found", error.is_not_found()),
            ("conflict", error.is_conflict()),
            ("forbidden", error.is_forbidden()),
            ("gone", error.is_gone()),
            ("retryable", error.is_retryable()),
        ]
        .into_iter()
        .filter_map(|(name, is)| is.then_some(name))
        .collect();
        assert_eq!(told.join(" "), expected, "{error}");
    }
}

#[test]
fn no_words_of_others_are_obeyed_by_a_terminal() {
    let words = || "a\u{1b}[2J\u{9b}b\u{202e}\rc".to_owned();
    let cause = || Arc::new(io::Error::other(words()));
    let hints = [
        Hint::Containers(vec![words()]),
        Hint::Program(words()),
        Hint::Namespace(words()),
        Hint::NotRunning {
            phase: words(),
            reason: words(),
        },
        Hint::Rule {
            group: words(),
            resource: words(),
            verbs: vec![words()],
        },
    ];
    let refusals = hints.map(|hint| {
        let mut refusal = ApiError::new("get", Status::failure(403, words(), words()));
        refusal.hint = Some(hint);
        Error::from(Box::new(refusal))
    });
    #[rustfmt::skip]
    let others: [Error; 17] = [
        PeerError::WebSocketLibrary(words()).into(),
        PeerError::Subprotocol { offered: words(), answer: words() }.into(),
        PeerError::Http(words()).into(),
        PeerError::Handshake(words()).into(),
        PeerError::Answer { operation: "get".into(), problem: words() }.into(),
        PeerError::Copy { path: words(), problem: words() }.into(),
        PeerError::ContentType { found: words() }.into(),
        NetworkError::Connect { address: "h:1".into(), source: cause() }.into(),
        NetworkError::Proxy { proxy: "p".into(), address: "h:1".into(), source: cause() }.into(),
        NetworkError::Lost(cause()).into(),
        NetworkError::ClosedWithoutStatus { code: Some(1), reason: words(), source: None }.into(),
        NetworkError::ClosedWithoutStatus { code: None, reason: words(), source: Some(cause()) }.into(),
        NetworkError::Reset { status: words() }.into(),
        CallerError::Config { origin: words(), problem: words() }.into(),
        CallerError::NoContainer { pod: "p".into(), name: words(), containers: vec![words()] }.into(),
        CallerError::NoPort { object: "p".into(), port: words() }.into(),
        CallerError::File { path: words(), source: Arc::new(io::ErrorKind::NotFound.into()) }.into(),
    ];
    for error in refusals.into_iter().chain(others) {
        for text in [
            error.to_string(),
            format!("{error:?}"),
            format!("{error:#?}"),
        ] {
            assert!(!text.replace('\n', "").contains(is_obeyed), "{text:?}");
        }
    }
}
