//! Which proxy leads to a server: that of the kubeconfig, or else that of the environment.
//!
//! In flow a `proxy-url` and the variables `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`;
//! out comes a [`Proxy`] or none. The rules are those of `golang.org/x/net/http/httpproxy`, which
//! kubectl follows, and `ALL_PROXY` besides, which it does not know.

use std::{net::IpAddr, sync::Arc};

use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};

use super::{
    Server,
    server::{address, scheme_of},
    wrong,
};
use crate::Result;

/// How to find a proxy for a server.
#[derive(Debug, Clone)]
pub(crate) enum Proxies {
    None,
    Always(Proxy),
    Environment(Arc<Variables>),
}

/// The variables, parsed. An unusable URL counts once it is needed.
#[derive(Debug, Clone)]
pub(crate) struct Variables {
    https: Option<Result<Proxy>>,
    http: Option<Result<Proxy>>,
    exceptions: Vec<Exception>,
}

#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) kind: ProxyKind,
    /// The host without the brackets of an IPv6 address.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// User name and password.
    pub(crate) login: Option<(String, SecretString)>,
    url: SecretString,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProxyKind {
    /// HTTP CONNECT over TCP.
    Http,
    /// HTTP CONNECT over TLS.
    Https,
    /// SOCKS version 5. The proxy resolves names, as in Go for `socks5` and `socks5h` alike.
    Socks5,
}

/// An entry of `NO_PROXY`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Exception {
    All,
    Network(IpAddr, u8),
    Address(IpAddr, Option<u16>),
    /// The domain with a leading dot, and whether it is itself meant.
    Domain(String, Option<u16>, bool),
}

impl Proxies {
    /// Those of the variables. Of a name in capitals and in small letters the capitals win.
    pub(super) fn of_environment<'a>(variable: impl Fn(&str) -> Option<&'a str>) -> Self {
        let either = |name: &'static str| {
            let small = name.to_ascii_lowercase();
            let value = variable(name).or_else(|| variable(&small))?;
            Some((name, value))
        };
        let parse = |(name, url): (&str, &str)| Proxy::parse(&url.into(), name);
        let all = either("ALL_PROXY");
        let https = either("HTTPS_PROXY").or(all).map(parse);
        let http = match (either("HTTP_PROXY"), variable("REQUEST_METHOD")) {
            // The request that a CGI program answers can set HTTP_PROXY, by the header Proxy.
            (Some(_), Some(_)) => Some(Err(wrong(
                "HTTP_PROXY",
                "it is not to be trusted in a CGI program (REQUEST_METHOD is set)",
            ))),
            (http, _) => http.or(all).map(parse),
        };
        if https.is_none() && http.is_none() {
            return Self::None;
        }
        Self::Environment(Arc::new(Variables {
            https,
            http,
            exceptions: either("NO_PROXY").map_or_else(Vec::new, |(_, list)| exceptions(list)),
        }))
    }

    /// The proxy for a server; an error if a variable holds no URL of one.
    pub(crate) fn of(&self, server: &Server) -> Result<Option<&Proxy>> {
        let variables = match self {
            Self::None => return Ok(None),
            Self::Always(proxy) => return Ok(Some(proxy)),
            Self::Environment(variables) => variables,
        };
        let proxy = match server.https {
            true => &variables.https,
            false => &variables.http,
        };
        match proxy {
            Some(proxy) if variables.proxied(&server.host, server.port) => {
                proxy.as_ref().map(Some).map_err(Clone::clone)
            }
            _ => Ok(None),
        }
    }
}

impl Variables {
    /// `useProxy`: never for this machine itself.
    fn proxied(&self, host: &str, port: u16) -> bool {
        if is_loopback(host) {
            return false;
        }
        let host = host.trim().to_ascii_lowercase();
        let address = host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
        !self.exceptions.iter().any(|exception| match exception {
            Exception::All => true,
            Exception::Network(network, bits) => {
                address.is_some_and(|address| contains(*network, *bits, address))
            }
            Exception::Address(other, at) => {
                address == Some(*other) && at.is_none_or(|at| at == port)
            }
            Exception::Domain(domain, at, itself) => {
                let below = host.ends_with(domain.as_str());
                (below || *itself && host == domain[1..]) && at.is_none_or(|at| at == port)
            }
        })
    }
}

/// Whether a host is `localhost` or an address of the loopback.
pub(crate) fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.to_canonical().is_loopback())
}

/// `httpproxy.config.init`: entries that are malformed are passed over.
fn exceptions(list: &str) -> Vec<Exception> {
    let mut exceptions = Vec::new();
    for entry in list.split(',') {
        let entry = entry.trim().to_ascii_lowercase();
        if entry == "*" {
            return vec![Exception::All];
        }
        if let Some((address, bits)) = entry.split_once('/')
            && let (Ok(address), Ok(bits)) = (address.parse::<IpAddr>(), bits.parse::<u8>())
            && bits <= if address.is_ipv4() { 32 } else { 128 }
        {
            exceptions.push(match (address, address.to_canonical()) {
                (IpAddr::V6(_), v4 @ IpAddr::V4(_)) if bits >= 96 => {
                    Exception::Network(v4, bits - 96)
                }
                _ => Exception::Network(address, bits),
            });
            continue;
        }
        let (mut host, port) = split_port(&entry);
        // Go takes brackets for those of an address with a port (`net.SplitHostPort`).
        if host.len() < entry.len() {
            host = host.trim_start_matches('[').trim_end_matches(']');
        }
        if let Ok(address) = host.parse::<IpAddr>() {
            exceptions.push(Exception::Address(address.to_canonical(), port));
            continue;
        }
        let host = host
            .strip_prefix('*')
            .filter(|h| h.starts_with('.'))
            .unwrap_or(host);
        match host.chars().next() {
            None => {}
            Some('.') => exceptions.push(Exception::Domain(host.to_owned(), port, false)),
            Some(_) => exceptions.push(Exception::Domain(format!(".{host}"), port, true)),
        }
    }
    exceptions
}

/// An IPv6 address without brackets has no port.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    match entry.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) if port.is_empty() => (host, None),
            Err(_) => (entry, None),
        },
        _ => (entry, None),
    }
}

fn contains(network: IpAddr, bits: u8, address: IpAddr) -> bool {
    let (differ, width): (u128, _) = match (network, address) {
        (IpAddr::V4(one), IpAddr::V4(other)) => ((one.to_bits() ^ other.to_bits()).into(), 32),
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits() ^ other.to_bits(), 128),
        _ => return false,
    };
    differ.checked_shr(width - u32::from(bits)).unwrap_or(0) == 0
}

impl Proxy {
    /// Takes a URL apart; one without a scheme is http. Errors name `origin`, and never repeat the
    /// URL.
    pub(super) fn parse(url: &SecretString, origin: &str) -> Result<Self> {
        let text = url.expose_secret().trim();
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let (kind, port) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (ProxyKind::Http, 80),
            "https" => (ProxyKind::Https, 443),
            "socks5" | "socks5h" => (ProxyKind::Socks5, 1080),
            other => {
                let scheme = scheme_of(other);
                return Err(wrong(
                    origin,
                    format!("{scheme} is none of http, https and socks5"),
                ));
            }
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (login, place) = match rest[..end].rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, &rest[..end]),
        };
        let unusable = || wrong(origin, "it has no usable host and port");
        let (host, given) = split_port(place);
        let host = match host.strip_prefix('[') {
            Some(v6) => {
                let v6 = v6.strip_suffix(']').ok_or_else(unusable)?;
                v6.parse::<std::net::Ipv6Addr>().map_err(|_| unusable())?;
                v6
            }
            None => host,
        };
        if host.is_empty() || given.is_none() && host.contains(':') && !place.starts_with('[') {
            return Err(unusable());
        }
        address(host, port)
            .parse::<http::uri::Authority>()
            .map_err(|_| unusable())?;
        let decode = |text: &str| {
            percent_decode_str(text)
                .decode_utf8()
                .map(|text| text.into_owned())
                .map_err(|_| wrong(origin, "its user name or password is not UTF-8"))
        };
        let login = match login {
            None => None,
            Some(login) => {
                let (user, password) = login.split_once(':').unwrap_or((login, ""));
                Some((decode(user)?, decode(password)?.into()))
            }
        };
        Ok(Self {
            kind,
            host: host.to_owned(),
            port: given.unwrap_or(port),
            login,
            url: url.clone(),
        })
    }

    pub(crate) fn url(&self) -> &SecretString {
        &self.url
    }

    /// The host, bracketed where need be, and the port.
    pub(crate) fn address(&self) -> String {
        address(&self.host, self.port)
    }
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} proxy {}", self.kind, self.address())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(variables: &[(&str, &str)], url: &str) -> Option<String> {
        let proxies = Proxies::of_environment(|name| {
            let found = variables.iter().find(|(other, _)| *other == name)?;
            Some(found.1)
        });
        let server = Server::parse(url, true, "test").unwrap();
        proxies.of(&server).unwrap().map(Proxy::address)
    }

    #[test]
    fn the_scheme_of_the_server_selects_the_variable() {
        let variables = [
            ("HTTPS_PROXY", "s:1"),
            ("HTTP_PROXY", "http://h:2"),
            ("ALL_PROXY", "a:3"),
        ];
        assert_eq!(through(&variables, "https://x").as_deref(), Some("s:1"));
        assert_eq!(through(&variables, "http://x").as_deref(), Some("h:2"));
        assert_eq!(
            through(&variables[2..], "https://x").as_deref(),
            Some("a:3")
        );
        assert_eq!(through(&variables[1..2], "https://x"), None);
        let small = [("https_proxy", "small:1"), ("HTTPS_PROXY", "capital:1")];
        assert_eq!(through(&small, "https://x").as_deref(), Some("capital:1"));
        assert_eq!(
            through(&small[..1], "https://x").as_deref(),
            Some("small:1")
        );
    }

    #[test]
    fn this_machine_is_never_reached_through_a_proxy_of_the_environment() {
        for url in [
            "https://localhost:6443",
            "https://127.8.0.1",
            "https://[::1]",
        ] {
            assert_eq!(through(&[("HTTPS_PROXY", "p")], url), None, "{url}");
        }
        let always = Proxies::Always(Proxy::parse(&"p".into(), "test").unwrap());
        let server = Server::parse("https://localhost", true, "test").unwrap();
        assert!(always.of(&server).unwrap().is_some());
    }

    #[test]
    fn no_proxy_reads_as_in_go() {
        for (list, url, proxied) in [
            ("*", "https://a.example.com", false),
            ("a,*,b", "https://x", false),
            ("example.com", "https://example.com", false),
            ("example.com", "https://a.EXAMPLE.com", false),
            ("example.com", "https://badexample.com", true),
            (".example.com", "https://example.com", true),
            (".example.com", "https://a.example.com", false),
            ("*.example.com", "https://a.b.example.com", false),
            ("*.example.com", "https://example.com", true),
            ("example.com:6443", "https://example.com:6443", false),
            ("example.com:6443", "https://example.com", true),
            (".svc, 10.0.0.0/8", "https://kubernetes.default.svc", false),
            (".svc, 10.0.0.0/8", "https://10.96.0.1", false),
            ("10.0.0.0/8", "https://11.0.0.1", true),
            ("0.0.0.0/0", "https://11.0.0.1", false),
            ("0.0.0.0/0", "https://[fd00::1]", true),
            ("fd00::/8", "https://[fd12::1]:6443", false),
            ("fd00::/8", "https://[fe80::1]", true),
            ("10.0.0.1", "https://10.0.0.1:6443", false),
            ("10.0.0.1:443", "https://10.0.0.1:6443", true),
            ("10.0.0.1:6443", "https://10.0.0.1:6443", false),
            ("[fd00::1]:6443", "https://[fd00::1]:6443", false),
            ("fd00::1", "https://[fd00::1]:6443", false),
            ("[fd00::1]", "https://[fd00::1]:6443", true),
            ("[fd00::1]:", "https://[fd00::1]:6443", false),
            ("10.0.0.1:", "https://10.0.0.1:6443", false),
            ("example.com:", "https://a.example.com:6443", false),
            ("::ffff:10.0.0.0/104", "https://10.0.0.1", false),
            ("10.0.0.0/8", "https://[::ffff:10.0.0.1]", false),
            ("10.0.0.0/99, ,:80,/8", "https://10.0.0.1", true),
            ("", "https://10.0.0.1", true),
        ] {
            let variables = [("HTTPS_PROXY", "p:1"), ("no_proxy", list)];
            assert_eq!(
                through(&variables, url).is_some(),
                proxied,
                "{list:?} {url}"
            );
        }
    }

    #[test]
    fn a_proxy_url_is_taken_apart_and_never_printed() {
        let parse = |url: &str| Proxy::parse(&url.into(), "test");
        let proxy = parse("https://me%40home:p%3Aw@[fd00::1]:8443/").unwrap();
        assert_eq!((proxy.kind, proxy.port), (ProxyKind::Https, 8443));
        assert_eq!(proxy.host, "fd00::1");
        let (user, password) = proxy.login.clone().unwrap();
        assert_eq!(
            (user.as_str(), password.expose_secret()),
            ("me@home", "p:w")
        );
        assert_eq!(format!("{proxy:?}"), "Https proxy [fd00::1]:8443");
        let proxy = parse("SOCKS5h://p").unwrap();
        assert_eq!((proxy.kind, proxy.port), (ProxyKind::Socks5, 1080));
        assert_eq!(parse("proxy:").unwrap().address(), "proxy:80");
        for url in [
            "ftp://h",
            "http://",
            "http://u:hunter2@",
            "http://h:hunter2",
            "http://[::zz]",
        ] {
            let error = parse(url).unwrap_err().to_string();
            assert!(
                error.starts_with("test: ") && !error.contains("hunter2"),
                "{error}"
            );
        }
    }

    #[test]
    fn an_unusable_variable_counts_only_where_it_is_needed() {
        let proxies = Proxies::of_environment(|name| match name {
            "HTTPS_PROXY" => Some("ftp://h"),
            "HTTP_PROXY" => Some("h"),
            "NO_PROXY" => Some("direct"),
            "REQUEST_METHOD" => Some("GET"),
            _ => None,
        });
        let of = |url: &str| {
            let server = Server::parse(url, true, "test").unwrap();
            proxies.of(&server).map(|proxy| proxy.is_some())
        };
        assert!(!of("https://direct").unwrap() && !of("http://localhost").unwrap());
        assert!(
            of("https://h")
                .unwrap_err()
                .to_string()
                .starts_with("HTTPS_PROXY: ")
        );
        assert!(of("http://h").unwrap_err().to_string().contains("CGI"));
    }
}
