//! The URL of an API server, taken apart once into what the connection and each request need.

use http::{HeaderValue, Uri, uri::PathAndQuery};

use super::wrong;
use crate::{Result, error::CallerError};

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) https: bool,
    /// The host without the brackets of an IPv6 address.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The `Host` header: the host, bracketed where need be, and the port if the URL names one.
    pub(crate) authority: HeaderValue,
    /// What precedes every path: empty, or with a leading and without a trailing slash.
    pub(crate) prefix: String,
}

impl Server {
    /// Takes a URL apart.
    ///
    /// `host:port` without a scheme is allowed, as in a kubeconfig; `bare_https` says what it
    /// means. A query or fragment is dropped (`k8s.io/client-go/tools/clientcmd`, `ClientConfig`).
    ///
    /// # Errors
    ///
    /// [`CallerError::Config`] under the name `origin`. The text never repeats a URL that could
    /// hold a password.
    pub(crate) fn parse(url: &str, bare_https: bool, origin: &str) -> Result<Self> {
        let wrong = |problem: String| wrong(origin, problem);
        let (https, rest) = match url.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
            Some((scheme, _)) => {
                let scheme = scheme_of(scheme);
                let problem = format!("the server's URL has {scheme}; http and https are possible");
                return Err(wrong(problem));
            }
            None => (bare_https, url),
        };
        // Also where a password holds a slash.
        if rest.contains('@') {
            return Err(wrong(
                "the server's URL holds a user name or password; set credentials apart from it, \
                 and write an @ in a path as %40"
                    .to_owned(),
            ));
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        let path = rest.split(['?', '#']).next().unwrap_or_default();
        let bad_host = || {
            wrong(format!(
                "the server's URL {url:?} has no usable host and port"
            ))
        };
        let parsed: http::uri::Authority = authority.parse().map_err(|_| bad_host())?;
        let (bracketed, tail) = match parsed.host() {
            "" => return Err(bad_host()),
            host => (host, &authority[host.len()..]),
        };
        let host = match bracketed.strip_prefix('[') {
            Some(v6) => {
                let v6 = v6.trim_end_matches(']');
                v6.parse::<std::net::Ipv6Addr>().map_err(|_| bad_host())?;
                v6
            }
            None => bracketed,
        };
        let port = match tail {
            "" | ":" => None,
            tail => Some(
                tail.strip_prefix(':')
                    .and_then(|port| port.parse::<u16>().ok())
                    .ok_or_else(bad_host)?,
            ),
        };
        let header = match port {
            Some(port) => format!("{bracketed}:{port}"),
            None => bracketed.to_owned(),
        };
        let prefix = path.trim_end_matches('/');
        if !prefix.is_empty() {
            prefix.parse::<PathAndQuery>().map_err(|_| {
                wrong(format!(
                    "the path {prefix:?} in the server's URL is not a URL path"
                ))
            })?;
        }
        Ok(Self {
            https,
            host: host.to_owned(),
            port: port.unwrap_or(if https { 443 } else { 80 }),
            authority: HeaderValue::from_str(&header).map_err(|_| bad_host())?,
            prefix: prefix.to_owned(),
        })
    }

    /// The host, bracketed where need be, and the port to dial: for error texts.
    pub(crate) fn address(&self) -> String {
        address(&self.host, self.port)
    }

    /// The URL without a trailing slash.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        let authority = self.authority.to_str().unwrap_or_default();
        format!("{scheme}://{authority}{}", self.prefix)
    }

    /// The request target in origin form (RFC 9112, section 3.2.1).
    pub(crate) fn origin_form(&self, path_and_query: &str) -> Result<Uri> {
        request_uri(&format!("{}{path_and_query}", self.prefix), path_and_query)
    }

    /// The same as text, which may be longer than a [`Uri`].
    pub(crate) fn target(&self, path_and_query: &str) -> Result<String> {
        check(path_and_query)?;
        Ok(format!("{}{path_and_query}", self.prefix))
    }

    /// The request target in absolute form (RFC 9112, section 3.2.2).
    pub(crate) fn absolute_form(&self, path_and_query: &str) -> Result<Uri> {
        request_uri(&format!("{}{path_and_query}", self.url()), path_and_query)
    }
}

/// A host and a port, an IPv6 address in brackets.
pub(crate) fn address(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// A scheme in an error text: not what is none, which may be a password (RFC 3986, section 3.1).
pub(super) fn scheme_of(text: &str) -> String {
    let is_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    match text.len() <= 16 && text.chars().all(is_scheme) {
        true => format!("the scheme {text:?}"),
        false => "a scheme that is none".to_owned(),
    }
}

/// A URL in an error text, without user name and password.
pub(crate) fn without_login(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    match rest.rsplit_once('@') {
        None => url.to_owned(),
        Some((_, place)) if scheme.is_empty() => format!("<login>@{place}"),
        Some((_, place)) => format!("{scheme}://<login>@{place}"),
    }
}

fn request_uri(uri: &str, asked: &str) -> Result<Uri> {
    check(asked)?;
    Ok(uri
        .parse()
        .map_err(|_| bad_path(asked, "is not a URL path"))?)
}

fn check(asked: &str) -> Result<()> {
    if !asked.starts_with('/') {
        return Err(bad_path(asked, "does not begin with a slash").into());
    }
    // RFC 3986, section 2: what else there is must be percent-encoded.
    match asked
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'#')
    {
        true => Ok(()),
        false => Err(bad_path(asked, "is not a URL path").into()),
    }
}

fn bad_path(asked: &str, problem: &'static str) -> CallerError {
    // The query may hold the arguments of a command.
    let path = asked.split('?').next().unwrap_or_default().to_owned();
    CallerError::Path { path, problem }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.url())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Server {
        Server::parse(url, true, "test").unwrap()
    }

    fn problem(url: &str) -> String {
        Server::parse(url, true, "test").unwrap_err().to_string()
    }

    #[test]
    fn a_port_defaults_to_that_of_the_scheme() {
        let server = parse("https://api.example.com");
        assert_eq!((server.https, server.port), (true, 443));
        assert_eq!(server.authority, "api.example.com");
        let server = parse("HTTP://127.0.0.1/");
        assert_eq!((server.https, server.port), (false, 80));
        assert_eq!(server.address(), "127.0.0.1:80");
    }

    #[test]
    fn an_ipv6_host_is_dialled_without_brackets_and_sent_with_them() {
        let server = parse("https://[fd00::1]:6443");
        assert_eq!((server.host.as_str(), server.port), ("fd00::1", 6443));
        assert_eq!(server.authority, "[fd00::1]:6443");
        assert_eq!(server.address(), "[fd00::1]:6443");
        assert_eq!(parse("http://[::1]").address(), "[::1]:80");
    }

    #[test]
    fn a_base_path_precedes_every_request() {
        let server = parse("https://rancher.example.com/k8s/clusters/c-1/?x=y#z");
        assert_eq!(server.url(), "https://rancher.example.com/k8s/clusters/c-1");
        let uri = server.origin_form("/api/v1/pods?watch=1").unwrap();
        assert_eq!(uri, "/k8s/clusters/c-1/api/v1/pods?watch=1");
        let uri = server.absolute_form("/version").unwrap();
        assert_eq!(uri, "https://rancher.example.com/k8s/clusters/c-1/version");
        let plain = parse("http://127.0.0.1:8001");
        assert_eq!(plain.origin_form("/version").unwrap(), "/version");
    }

    #[test]
    fn a_host_and_port_without_scheme_means_what_the_caller_says() {
        assert!(parse("10.0.0.1:6443").https);
        assert!(!Server::parse("10.0.0.1:8080", false, "test").unwrap().https);
    }

    #[test]
    fn unusable_urls_are_named() {
        assert!(problem("unix:///run/api.sock").contains("scheme \"unix\""));
        for url in [
            "https://",
            "https://:6443",
            "https://h:99999",
            "https://[fd00::zz]",
            "https://h:x",
        ] {
            assert!(problem(url).contains("no usable host and port"), "{url}");
        }
        assert!(problem("https://h/a b").contains("not a URL path"));
        assert!(parse("https://h").origin_form("version").is_err());
        assert!(parse("https://h").origin_form("/a b").is_err());
    }

    #[test]
    fn a_password_in_the_url_is_refused_and_not_repeated() {
        for url in [
            "https://me:hunter2@h:6443",
            "https://me:hunter2/x@h:6443",
            "https://me:8/hunter2@h",
            "me:hunter2@h",
            "https://me:hunter2?@h",
        ] {
            let problem = problem(url);
            assert!(problem.contains("user name or password"), "{problem}");
            assert!(!problem.contains("hunter2"), "{problem}");
        }
        assert!(!problem("me:hunter2@h://x").contains("hunter2"));
        assert_eq!(without_login("https://h/a"), "https://h/a");
        assert_eq!(without_login("https://a:b/c@h/d"), "https://<login>@h/d");
    }
}
