//! Keys that mean something on this side: in flow those that are typed on a terminal in raw mode,
//! out come those for the remote, and what is asked of this program.

/// What a sequence of keys asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// To give up a session that may hang.
    GiveUp,
    /// To leave a session that goes on without us.
    Detach,
}

/// The sequences: `~.` at the start of a line, as ssh has it, and those that detach.
///
/// Keys that begin a sequence are held until it is clear that they are none.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    detach: Vec<u8>,
    held: Vec<u8>,
    /// Whether nothing has been sent since the last line ended.
    at_line_start: bool,
}

impl Keys {
    /// With a sequence that detaches, unless that is empty.
    pub(crate) fn new(detach: &[u8]) -> Self {
        Self {
            detach: detach.to_vec(),
            held: Vec::new(),
            at_line_start: true,
        }
    }

    /// Takes keys, and gives those to send. What follows a request is dropped.
    pub(crate) fn take(&mut self, typed: &[u8]) -> (Vec<u8>, Option<Request>) {
        let mut sent = Vec::with_capacity(self.held.len() + typed.len());
        for &key in typed {
            self.held.push(key);
            while !self.held.is_empty() {
                if self.held == self.detach {
                    return (sent, Some(Request::Detach));
                }
                match (self.at_line_start, &self.held[..]) {
                    (true, b"~.") => return (sent, Some(Request::GiveUp)),
                    // One of two is sent, as by ssh.
                    (true, b"~~") => {
                        self.held.pop();
                        self.send_first(&mut sent);
                    }
                    (true, b"~") => break,
                    (_, held) if self.detach.starts_with(held) => break,
                    _ => self.send_first(&mut sent),
                }
            }
        }
        (sent, None)
    }

    fn send_first(&mut self, sent: &mut Vec<u8>) {
        let key = self.held.remove(0);
        self.at_line_start = matches!(key, b'\r' | b'\n');
        sent.push(key);
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sequence(pub(crate) Vec<u8>);

/// Keys as `docker attach` writes them: characters and `ctrl-` with a letter or one of `@[\]^_`,
/// with commas between them; nothing for none.
pub(crate) fn sequence(text: &str) -> Result<Sequence, String> {
    if text.is_empty() {
        return Ok(Sequence::default());
    }
    let key = |key: &str| match (key.strip_prefix("ctrl-").map(str::as_bytes), key.as_bytes()) {
        (Some([c @ (b'a'..=b'z' | b'@' | b'['..=b'_')]), _) => Some(c.to_ascii_uppercase() ^ 0x40),
        (None, [c]) if c.is_ascii_graphic() => Some(*c),
        _ => None,
    };
    let keys: Option<Vec<_>> = text.split(',').map(key).collect();
    keys.map(Sequence)
        .ok_or_else(|| format!("{text:?} is not a sequence of keys such as ctrl-p,ctrl-q"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Types keys whole and one by one, which gives the same.
    fn typed(detach: &str, text: &str) -> (String, Option<Request>) {
        let keys = Keys::new(&sequence(detach).unwrap().0);
        let whole = keys.clone().take(text.as_bytes());
        let mut one_by_one = (Vec::new(), None);
        let mut keys = keys;
        for key in text.as_bytes() {
            let (sent, request) = keys.take(&[*key]);
            one_by_one.0.extend(sent);
            one_by_one.1 = request;
            if request.is_some() {
                break;
            }
        }
        assert_eq!(whole, one_by_one, "{text:?}");
        (String::from_utf8(whole.0).unwrap(), whole.1)
    }

    #[test]
    fn a_tilde_and_a_dot_at_the_start_of_a_line_give_up() {
        for (text, sent, request) in [
            ("~.", "", Some(Request::GiveUp)),
            ("ls\r~.x", "ls\r", Some(Request::GiveUp)),
            ("ls\n~.", "ls\n", Some(Request::GiveUp)),
            ("ls ~.", "ls ~.", None),
            ("~~.", "~.", None),
            ("~/x\r", "~/x\r", None),
            ("~\r~.", "~\r", Some(Request::GiveUp)),
            ("~", "", None),
            (".~.", ".~.", None),
        ] {
            assert_eq!(typed("", text), (sent.to_owned(), request), "{text:?}");
        }
    }

    #[test]
    fn a_sequence_detaches_wherever_it_is_typed() {
        for (text, sent, request) in [
            ("ls\u{10}\u{11}x", "ls", Some(Request::Detach)),
            ("\u{10}\u{10}\u{11}", "\u{10}", Some(Request::Detach)),
            ("\u{10}a", "\u{10}a", None),
            ("\u{10}~.", "\u{10}~.", None),
            ("\r\u{10}\r~.", "\r\u{10}\r", Some(Request::GiveUp)),
        ] {
            let expected = (sent.to_owned(), request);
            assert_eq!(typed("ctrl-p,ctrl-q", text), expected, "{text:?}");
        }
        assert_eq!(typed("~,x", "~x"), (String::new(), Some(Request::Detach)));
        assert_eq!(typed("~,x", "~."), (String::new(), Some(Request::GiveUp)));
    }

    #[test]
    fn sequences_are_written_as_for_docker() {
        assert_eq!(sequence("ctrl-p,ctrl-q"), Ok(Sequence(vec![0x10, 0x11])));
        assert_eq!(
            sequence("ctrl-@,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_"),
            Ok(Sequence(vec![0, 27, 28, 29, 30, 31]))
        );
        assert_eq!(sequence("a,~"), Ok(Sequence(vec![b'a', b'~'])));
        assert_eq!(sequence(""), Ok(Sequence::default()));
        for wrong in [",", "ctrl-", "ctrl-1", "ab", "ctrl-p,", "ü"] {
            assert!(sequence(wrong).is_err(), "{wrong}");
        }
    }
}
