//! Through a proxy: HTTP CONNECT and SOCKS version 5.
//!
//! In flows a connection to the proxy and the server's host and port; it is the connection to the
//! server once the functions here have returned. They read no byte more than is theirs.
//!
//! hyper-util has both. Its errors leave out which HTTP code the proxy answered, its SOCKS client
//! refuses long passwords and proxies that need none.

use std::{io, net::IpAddr};

use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::{config::address, limits};

/// User name and password.
type Login = (String, SecretString);

/// Asks an HTTP proxy to connect (RFC 9110, section 9.3.6), and gives the code of its answer.
pub(super) async fn connect<S>(
    stream: &mut S,
    (host, port): (&str, u16),
    login: Option<&Login>,
) -> io::Result<u16>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let place = address(host, port);
    let agent = crate::AGENT;
    let mut request =
        format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\nUser-Agent: {agent}\r\n");
    if let Some((user, password)) = login {
        let pair = STANDARD.encode(format!("{user}:{}", password.expose_secret()));
        request.push_str(&format!("Proxy-Authorization: Basic {pair}\r\n"));
    }
    request.push_str("\r\n");
    let request = SecretString::from(request);
    send(stream, request.expose_secret().as_bytes()).await?;

    // A byte at a time: what follows the head belongs to the server. It is a few hundred bytes.
    let mut head = Vec::with_capacity(512);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == limits::PROXY_ANSWER {
            let bytes = limits::PROXY_ANSWER;
            return Err(refused(format!("its answer has more than {bytes} bytes")));
        }
        head.push(stream.read_u8().await.map_err(closed)?);
    }
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut parts = line.splitn(3, ' ');
    let version = parts.next().unwrap_or_default();
    let code = parts.next().and_then(|code| code.parse::<u16>().ok());
    match code.filter(|_| version.starts_with("HTTP/1.")) {
        Some(code @ 200..=299) => Ok(code),
        Some(407) => Err(refused(match login {
            None => "it wants a user name and password (407)",
            Some(_) => "it refuses the user name and password (407)",
        })),
        Some(code) => {
            let reason: String = parts.next().unwrap_or_default().chars().take(64).collect();
            Err(refused(format!(
                "it answered {}",
                format!("{code} {reason}").trim_end()
            )))
        }
        None => Err(refused("it does not answer in HTTP/1.1")),
    }
}

/// Asks a SOCKS proxy for a connection (RFC 1928; RFC 1929 for the login). It resolves the name.
pub(super) async fn socks5<S>(
    stream: &mut S,
    (host, port): (&str, u16),
    login: Option<&Login>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let long = |what: &str| refused(format!("{what} is longer than SOCKS allows (255 bytes)"));
    let methods: &[u8] = match login {
        None => &[5, 1, 0],
        Some(_) => &[5, 2, 0, 2],
    };
    send(stream, methods).await?;
    match (receive::<2, S>(stream).await?, login) {
        ([5, 0], _) => {}
        ([5, 2], Some((user, password))) => {
            let password = password.expose_secret();
            let mut request = vec![1];
            for (what, text) in [("the user name", user.as_str()), ("the password", password)] {
                request.push(u8::try_from(text.len()).map_err(|_| long(what))?);
                request.extend_from_slice(text.as_bytes());
            }
            send(stream, &request).await?;
            if receive::<2, S>(stream).await?[1] != 0 {
                return Err(refused("it refuses the user name and password"));
            }
        }
        ([5, 0xff], None) => return Err(refused("it wants a user name and password")),
        ([5, _], _) => return Err(refused("it wants another way to log in")),
        _ => return Err(refused("it does not speak SOCKS version 5")),
    }

    let mut request = vec![5, 1, 0];
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => {
            request.push(1);
            request.extend(address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            request.push(4);
            request.extend(address.octets());
        }
        Err(_) => {
            request.push(3);
            request.push(u8::try_from(host.len()).map_err(|_| long("the server's name"))?);
            request.extend_from_slice(host.as_bytes());
        }
    }
    request.extend(port.to_be_bytes());
    send(stream, &request).await?;
    let [version, reply, _, kind] = receive::<4, S>(stream).await?;
    match (version, reply) {
        (5, 0) => {}
        (5, reply) => return Err(refused(reason(reply))),
        _ => return Err(refused("it does not speak SOCKS version 5")),
    }
    // The address that the proxy connects from, which nobody needs.
    let rest = match kind {
        1 => 4,
        4 => 16,
        3 => usize::from(receive::<1, S>(stream).await?[0]),
        _ => return Err(refused("it does not speak SOCKS version 5")),
    };
    let mut address = [0; 255 + 2];
    stream
        .read_exact(&mut address[..rest + 2])
        .await
        .map_err(closed)?;
    Ok(())
}

/// RFC 1928, section 6.
fn reason(reply: u8) -> &'static str {
    match reply {
        2 => "its rules do not allow it",
        3 => "the network is unreachable",
        4 => "the host is unreachable, or its name unknown",
        5 => "the server refuses the connection",
        6 => "the connection timed out",
        7 => "it does not know the command",
        8 => "it does not know the kind of address",
        _ => "it failed",
    }
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

async fn receive<const N: usize, S>(stream: &mut S) -> io::Result<[u8; N]>
where
    S: AsyncRead + Unpin,
{
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await.map_err(closed)?;
    Ok(bytes)
}

fn closed(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => refused("it closed the connection"),
        _ => error,
    }
}

fn refused(problem: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionRefused, problem.into())
}

#[cfg(test)]
mod tests;
