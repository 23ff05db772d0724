//! The client certificate as its holder has to know it: in flows DER, out come its dates, and
//! whether a key is its own.
//!
//! Whether it is a good one the server judges: X.509 version 1 and unknown extensions are no
//! reason to keep it back (RFC 5280, section 4.1, has the form).

use std::{
    io,
    sync::{Arc, Mutex},
};

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

use crate::error::{CallerError, panic::lock};

/// What error texts say of a certificate.
#[derive(Debug, Clone)]
pub(crate) struct ClientCertificate {
    /// Where it comes from.
    origin: String,
    not_before: Option<Timestamp>,
    not_after: Option<Timestamp>,
}

/// The client certificate of connections, and what the server said of it last.
#[derive(Debug, Default)]
pub(super) struct Presented {
    pub(super) certificate: Option<ClientCertificate>,
    refusal: Mutex<Option<CallerError>>,
}

impl Presented {
    pub(super) fn new(certificate: Option<ClientCertificate>) -> Self {
        Self {
            certificate,
            refusal: Mutex::default(),
        }
    }

    pub(super) fn refused(&self, problem: &str, error: &io::Error) -> CallerError {
        let certificate = self.certificate.as_ref();
        let out_of_date = certificate.and_then(ClientCertificate::out_of_date);
        let refusal = CallerError::ClientCertificate {
            certificate: certificate
                .map_or_else(|| "none is given".to_owned(), ToString::to_string),
            problem: out_of_date.unwrap_or_else(|| problem.to_owned()),
            source: Arc::new(io::Error::new(error.kind(), error.to_string())),
        };
        *lock(&self.refusal) = Some(refusal.clone());
        refusal
    }

    /// The server has read it, and goes on.
    pub(super) fn accepted(&self) {
        *lock(&self.refusal) = None;
    }

    pub(super) fn refusal(&self) -> Option<CallerError> {
        lock(&self.refusal).clone()
    }
}

struct Parts<'a> {
    not_before: Option<Timestamp>,
    not_after: Option<Timestamp>,
    public_key: &'a [u8],
}

impl ClientCertificate {
    pub(super) fn new(origin: &str, der: &[u8]) -> Self {
        let parts = parts(der);
        Self {
            origin: origin.to_owned(),
            not_before: parts.as_ref().and_then(|parts| parts.not_before),
            not_after: parts.as_ref().and_then(|parts| parts.not_after),
        }
    }

    /// Why the server cannot accept it now, by this machine's clock.
    pub(crate) fn out_of_date(&self) -> Option<String> {
        let now = Timestamp::now();
        match (self.not_before, self.not_after) {
            (_, Some(end)) if end < now => Some(format!("it expired at {}", whole(end))),
            (Some(begin), _) if begin > now => {
                Some(format!("it is not valid before {}", whole(begin)))
            }
            _ => None,
        }
    }
}

/// Its origin and its end.
impl std::fmt::Display for ClientCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.origin)?;
        match self.not_after {
            None => Ok(()),
            Some(end) => write!(f, ", valid until {}", whole(end)),
        }
    }
}

fn whole(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The `SubjectPublicKeyInfo` of a certificate.
pub(super) fn public_key(der: &[u8]) -> Option<&[u8]> {
    parts(der).map(|parts| parts.public_key)
}

/// RFC 5280, section 4.1: `TBSCertificate`.
fn parts(der: &[u8]) -> Option<Parts<'_>> {
    const INTEGER: u8 = 0x02;
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    let mut certificate = der;
    let mut certificate = content(&mut certificate, SEQUENCE)?;
    let mut fields = content(&mut certificate, SEQUENCE)?;
    // Version 1 is left out.
    if fields.first() == Some(&VERSION) {
        content(&mut fields, VERSION)?;
    }
    content(&mut fields, INTEGER)?;
    content(&mut fields, SEQUENCE)?;
    content(&mut fields, SEQUENCE)?;
    let mut validity = content(&mut fields, SEQUENCE)?;
    content(&mut fields, SEQUENCE)?;
    let from_key = fields;
    content(&mut fields, SEQUENCE)?;
    Some(Parts {
        not_before: time(&mut validity),
        not_after: time(&mut validity),
        public_key: &from_key[..from_key.len() - fields.len()],
    })
}

/// Takes an element of this kind from the front.
fn content<'a>(from: &mut &'a [u8], kind: u8) -> Option<&'a [u8]> {
    let (found, content) = element(from)?;
    (found == kind).then_some(content)
}

/// X.690, section 8.1.3: a short length, or the number of bytes that hold it.
fn element<'a>(from: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (&kind, rest) = from.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = bytes
                .iter()
                .fold(0, |all, byte| all << 8 | u32::from(*byte));
            (usize::try_from(length).ok()?, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    *from = rest;
    Some((kind, content))
}

/// RFC 5280, section 4.1.2.5: `YYMMDDHHMMSSZ`, from 2050 on with the century.
fn time(from: &mut &[u8]) -> Option<Timestamp> {
    const UTC_TIME: u8 = 0x17;
    const GENERALIZED_TIME: u8 = 0x18;
    let (kind, text) = element(from)?;
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = match kind {
        UTC_TIME => {
            let (year, rest) = text.split_at_checked(2)?;
            let year: i16 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = text.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let two = |at: usize| rest.get(at..at + 2)?.parse::<i8>().ok();
    let time = DateTime::new(year, two(0)?, two(2)?, two(4)?, two(6)?, two(8)?, 0).ok()?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::tests::{authority, params};

    #[test]
    fn the_dates_and_the_key_of_a_certificate_are_found() {
        let mut dated = params(&["x"]);
        dated.not_before = rcgen::date_time_ymd(1999, 12, 31);
        dated.not_after = rcgen::date_time_ymd(2002, 1, 1);
        let leaf = authority().sign(dated);
        let der = leaf.certificate.der();
        let certificate = ClientCertificate::new("c", der);
        assert_eq!(
            certificate.to_string(),
            "c, valid until 2002-01-01T00:00:00Z"
        );
        assert_eq!(
            certificate.out_of_date().unwrap(),
            "it expired at 2002-01-01T00:00:00Z"
        );
        let key = rustls::pki_types::PrivateKeyDer::try_from(leaf.key.serialize_der()).unwrap();
        let provider = crate::net::provider::provider();
        let key = provider.key_provider.load_private_key(key).unwrap();
        assert_eq!(key.public_key().unwrap().as_ref(), public_key(der).unwrap());

        let mut future = params(&["x"]);
        future.not_before = rcgen::date_time_ymd(3001, 1, 1);
        future.not_after = rcgen::date_time_ymd(3002, 1, 1);
        let der = authority().sign(future).certificate.der().to_vec();
        let certificate = ClientCertificate::new("c", &der);
        assert_eq!(
            certificate.out_of_date().unwrap(),
            "it is not valid before 3001-01-01T00:00:00Z"
        );
    }

    #[test]
    fn damaged_certificates_are_no_reason_to_fail() {
        let der = authority().sign(params(&["x"])).certificate.der().to_vec();
        for length in 0..der.len() {
            let _ = ClientCertificate::new("c", &der[..length]).out_of_date();
        }
        for at in 0..der.len().min(200) {
            let mut der = der.clone();
            der[at] ^= 0xff;
            let _ = ClientCertificate::new("c", &der).out_of_date();
        }
        let certificate = ClientCertificate::new("c", b"");
        assert_eq!(
            (certificate.to_string().as_str(), certificate.out_of_date()),
            ("c", None)
        );
    }
}
