//! Which requests are passed on: in flow their heads, out comes what the server is asked for, or
//! why it is not.
//!
//! Rules see a path as the server will: decoded, and without the prefix of the proxy. A path that
//! servers may read in several ways is refused, for then a rule may see another than they do.

use http::{HeaderName, Request, StatusCode, header::HOST, header::ORIGIN, header::UPGRADE};
use percent_encoding::percent_decode_str;
use regex::RegexSet;

pub(super) struct Filter {
    hosts: RegexSet,
    paths: RegexSet,
    rejected_paths: RegexSet,
    rejected_methods: RegexSet,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal(pub(super) StatusCode, pub(super) &'static str);

const FORBIDDEN: Refusal = Refusal(StatusCode::FORBIDDEN, "Forbidden");

impl Filter {
    /// Hosts and paths that are accepted, paths and methods that are not.
    pub(super) fn new(rules: [&[String]; 4]) -> Result<Self, regex::Error> {
        let [hosts, paths, rejected_paths, rejected_methods] = rules.map(RegexSet::new);
        Ok(Self {
            hosts: hosts?,
            paths: paths?,
            rejected_paths: rejected_paths?,
            rejected_methods: rejected_methods?,
        })
    }

    pub(super) fn check<B>(&self, request: &Request<B>, path: &str) -> Result<(), Refusal> {
        self.check_host(request)?;
        check_origin(request)?;
        let path = decoded(path)?;
        // Servers take a path with a slash at its end for the one without.
        let trimmed = path.trim_end_matches('/');
        let rejected = self.rejected_paths.is_match(&path) || self.rejected_paths.is_match(trimmed);
        if rejected
            || !self.paths.is_match(&path)
            || self.rejected_methods.is_match(request.method().as_str())
        {
            return Err(FORBIDDEN);
        }
        Ok(())
    }

    /// A page whose name leads here from elsewhere names itself.
    fn check_host<B>(&self, request: &Request<B>) -> Result<(), Refusal> {
        let header = header(request, HOST)?;
        let target = request.uri().authority().map(|target| target.as_str());
        let mut hosts = header.into_iter().chain(target).peekable();
        if hosts.peek().is_none() || !hosts.all(|host| self.hosts.is_match(without_port(host))) {
            return Err(FORBIDDEN);
        }
        Ok(())
    }
}

/// The path of the server that a path here means, if it is under the prefix.
pub(super) fn strip_prefix(prefix: &str, path: &str) -> Option<String> {
    match prefix {
        "/" => Some(path.to_owned()),
        prefix => match path.strip_prefix(prefix)? {
            "" => Some("/".to_owned()),
            rest if rest.starts_with('/') => Some(rest.to_owned()),
            _ => None,
        },
    }
}

/// Browsers open WebSockets to anywhere, and send simple requests to anywhere; they say from which
/// page. One of another origin may not ask for more than to read, which it then cannot (RFC 6454,
/// section 7; RFC 6455, section 10.2).
fn check_origin<B>(request: &Request<B>) -> Result<(), Refusal> {
    let Some(origin) = header(request, ORIGIN)? else {
        return Ok(());
    };
    if request.method().is_safe() && !request.headers().contains_key(UPGRADE) {
        return Ok(());
    }
    let page = origin.split_once("://").map(|(_, page)| page);
    let here = header(request, HOST)?;
    match (page, here) {
        (Some(page), Some(here)) if page.eq_ignore_ascii_case(here) => Ok(()),
        _ => Err(Refusal(
            StatusCode::FORBIDDEN,
            "Forbidden: a page of another origin",
        )),
    }
}

/// The one value of a header. Of several one cannot tell which the server takes.
fn header<B>(request: &Request<B>, name: HeaderName) -> Result<Option<&str>, Refusal> {
    let mut values = request.headers().get_all(name).iter();
    let (first, second) = (values.next(), values.next());
    match (first.map(|value| value.to_str()), second) {
        (None, _) => Ok(None),
        (Some(Ok(value)), None) => Ok(Some(value)),
        _ => Err(Refusal(
            StatusCode::BAD_REQUEST,
            "a header that is not clear",
        )),
    }
}

/// A host without its port, and an IPv6 address with its brackets.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((front, port))
            if port.bytes().all(|byte| byte.is_ascii_digit())
                && (!front.contains(':') || front.ends_with(']')) =>
        {
            front
        }
        _ => host,
    }
}

/// A path as the server reads it (`net/url` of Go decodes once), if there is but one way to.
fn decoded(path: &str) -> Result<String, Refusal> {
    let refused = Err(Refusal(StatusCode::BAD_REQUEST, "a path that is not clear"));
    let mut escapes = path.split('%').skip(1);
    let is_escape = |escape: &str| {
        let digits = escape.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !escapes.all(is_escape) {
        return refused;
    }
    let Ok(path) = percent_decode_str(path).decode_utf8() else {
        return refused;
    };
    let Some(behind) = path.strip_prefix('/') else {
        return refused;
    };
    let mut segments = behind.trim_end_matches('/').split('/');
    let is_clear = behind.is_empty()
        || segments.all(|segment| !matches!(segment, "" | "." | ".."))
            && !behind.ends_with("//")
            && !behind.contains(char::is_control);
    if is_clear {
        Ok(path.into_owned())
    } else {
        refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter() -> Filter {
        let texts = |texts: &[&str]| {
            texts
                .iter()
                .map(|&text| text.to_owned())
                .collect::<Vec<_>>()
        };
        Filter::new([
            &texts(&[r"^localhost$", r"^127\.0\.0\.1$", r"^\[::1\]$"]),
            &texts(&["^.*"]),
            &texts(&super::super::REJECTED_PATHS.split(',').collect::<Vec<_>>()),
            &texts(&["^(?i)delete$"]),
        ])
        .unwrap()
    }

    fn get(path: &str) -> http::request::Builder {
        Request::get(path).header(HOST, "127.0.0.1:8001")
    }

    fn code(request: http::request::Builder, path: &str) -> u16 {
        let checked = filter().check(&request.body(()).unwrap(), path);
        checked.err().map_or(200, |refusal| refusal.0.as_u16())
    }

    #[test]
    fn rules_see_what_the_server_will_see() {
        for (path, expected) in [
            ("/", 200),
            ("/api", 200),
            ("/api/v1/pods/", 200),
            ("/api/v1/namespaces/ns/pods/exec", 200),
            ("/api/v1/namespaces/ns/pods/web-0%3A80/proxy/a%20b", 200),
            ("/api/v1/namespaces/ns/pods/web-0/exec", 403),
            ("/api/v1/namespaces/ns/pods/web-0/exec/", 403),
            ("/api/v1/namespaces/ns/pods/web-0/%65xec", 403),
            ("/%61pi/v1/namespaces/ns/pods/web-0/exec", 403),
            ("/api/v1/namespaces/ns/pods%2Fweb-0%2fexec", 403),
            ("/api/v1/namespaces/ns/pods/web-0/attac%68", 403),
            // The kubelet's own, through the API server.
            ("/api/v1/nodes/node-1/proxy/exec/ns/web-0/main", 403),
            ("/api/v1/nodes/node-1:10250/proxy/run/ns/web-0/main", 403),
            ("//api/v1/namespaces/ns/pods/web-0/exec", 400),
            ("/api//v1/namespaces/ns/pods/web-0/log", 400),
            ("/api/v1/pods//", 400),
            ("/x/../api/v1/namespaces/ns/pods/web-0/log", 400),
            ("/api/v1/x/%2e%2E/pods", 400),
            ("/api/v1/./pods", 400),
            ("/api/v1/namespaces/a%0Ab/pods/web-0/log", 400),
            ("/api/%zz", 400),
            ("/api/%4", 400),
            ("/api/%ff", 400),
            ("api", 400),
        ] {
            assert_eq!(code(get("/"), path), expected, "{path}");
        }
        let method = Request::builder()
            .method("DELETE")
            .header(HOST, "localhost");
        assert_eq!(code(method, "/api"), 403);
    }

    #[test]
    fn a_prefix_is_no_way_round_the_rules() {
        let exec = "/api/v1/namespaces/ns/pods/web-0/exec";
        assert_eq!(
            strip_prefix("/k8s", &format!("/k8s{exec}")).as_deref(),
            Some(exec)
        );
        let twice = strip_prefix("/k8s", &format!("/k8s/{exec}")).unwrap();
        assert_eq!(code(get("/"), &twice), 400);
        assert_eq!(strip_prefix("/k8s", "/k8s").as_deref(), Some("/"));
        assert_eq!(strip_prefix("/k8s", "/k8sx"), None);
        assert_eq!(strip_prefix("/k8s", "/%6b8s/api"), None);
        assert_eq!(strip_prefix("/", "/api").as_deref(), Some("/api"));
    }

    #[test]
    fn hosts_and_origins_are_this_proxy_s_own() {
        let host = |host: &str| code(Request::get("/").header(HOST, host), "/api");
        assert_eq!(host("localhost:8001"), 200);
        assert_eq!(host("[::1]:8001"), 200);
        assert_eq!(host("evil.test:8001"), 403);
        assert_eq!(host("localhost.evil.test"), 403);
        assert_eq!(host("127.0.0.1:80@evil.test"), 403);
        assert_eq!(code(Request::get("/"), "/api"), 403);
        let two = Request::get("/")
            .header(HOST, "localhost")
            .header(HOST, "evil.test");
        assert_eq!(code(two, "/api"), 400);
        let absolute = Request::get("http://evil.test/api").header(HOST, "localhost");
        assert_eq!(code(absolute, "/api"), 403);

        let upgrade = |origin: &str| {
            let request = get("/").header(UPGRADE, "websocket").header(ORIGIN, origin);
            code(request, "/api")
        };
        assert_eq!(code(get("/").header(UPGRADE, "websocket"), "/api"), 200);
        assert_eq!(upgrade("http://127.0.0.1:8001"), 200);
        for origin in [
            "http://evil.test",
            "null",
            "",
            "http://127.0.0.1:3000",
            "127.0.0.1:8001",
        ] {
            assert_eq!(upgrade(origin), 403, "{origin}");
        }
        let post = || Request::post("/").header(HOST, "127.0.0.1:8001");
        assert_eq!(code(post(), "/api"), 200);
        assert_eq!(code(post().header(ORIGIN, "http://evil.test"), "/api"), 403);
        assert_eq!(
            code(get("/").header(ORIGIN, "http://evil.test"), "/api"),
            200
        );
    }

    #[test]
    fn rules_have_classes_and_flags() {
        let rules = [r"^/\d+$", "(?i)^/METRICS$", r"^/\p{Greek}$"].map(str::to_owned);
        let filter = Filter::new([&["^localhost$".to_owned()], &rules, &[], &[]]).unwrap();
        let request = Request::get("/")
            .header(HOST, "localhost")
            .body(())
            .unwrap();
        for path in ["/42", "/metrics", "/%CE%B1"] {
            assert_eq!(filter.check(&request, path), Ok(()), "{path}");
        }
        assert_eq!(filter.check(&request, "/x"), Err(FORBIDDEN));
    }
}
