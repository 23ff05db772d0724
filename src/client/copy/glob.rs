//! Patterns of names: in flow a pattern and a path, out comes whether they match.

#[derive(Debug, Clone, Default)]
pub(super) struct Exclude(Vec<Vec<u8>>);

impl Exclude {
    pub(super) fn push(&mut self, pattern: String) {
        self.0.push(pattern.into_bytes());
    }

    pub(super) fn of(pattern: &[u8]) -> Self {
        Self(vec![pattern.to_vec()])
    }

    /// Whether the path below the root of a copy is left out. As with `tar --exclude`, a pattern
    /// may match from any name of it on.
    pub(super) fn has(&self, below: &[u8]) -> bool {
        let starts = (0..below.len()).filter(|&at| at == 0 || below[at - 1] == b'/');
        let mut starts = starts.map(|at| &below[at..]);
        !self.0.is_empty() && starts.any(|path| self.0.iter().any(|it| matches(it, path)))
    }

    /// The patterns, for `tar`.
    pub(super) fn patterns(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|it| &it[..])
    }
}

/// Whether all of `text` matches: `*` is any bytes, a slash too, `?` any one, `[a-c]` and `[!a-c]`
/// one of a set, and behind a backslash nothing has a meaning.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut of) = (0, 0);
    // Where the last star was, and how far it had reached: there it takes one more.
    let mut star = None;
    loop {
        if at == text.len() {
            return pattern[of..].iter().all(|it| *it == b'*');
        }
        if pattern.get(of) == Some(&b'*') {
            of += 1;
            star = Some((at, of));
            continue;
        }
        match one(&pattern[of..], text[at]) {
            Some(length) => (at, of) = (at + 1, of + length),
            None => match star {
                Some((reached, behind)) => {
                    star = Some((reached + 1, behind));
                    (at, of) = (reached + 1, behind);
                }
                None => return false,
            },
        }
    }
}

/// The bytes of the pattern that stand for this one byte, if they do.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'\\', literal, ..] => (*literal == byte).then_some(2),
        [b'[', set @ ..] => {
            let negated = usize::from(matches!(set, [b'!' | b'^', ..]));
            let inside = &set[negated..];
            // A bracket that is the first of a set is in it.
            let end = inside
                .iter()
                .skip(1)
                .position(|it| *it == b']')
                .map(|at| at + 1);
            let Some(end) = end else {
                return (byte == b'[').then_some(1);
            };
            let (mut set, mut found) = (&inside[..end], false);
            while let [first, rest @ ..] = set {
                (found, set) = match rest {
                    [b'-', last, rest @ ..] => (found || (*first..=*last).contains(&byte), rest),
                    rest => (found || *first == byte, rest),
                };
            }
            (found != (negated == 1)).then_some(1 + negated + end + 1)
        }
        [literal, ..] => (*literal == byte).then_some(1),
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, text, expected) in [
            ("*.log", "a.log", true),
            ("*.log", "a.log.1", false),
            ("a*b*c", "aXbXbXc", true),
            ("?", "", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[]]", "]", true),
            ("[", "[", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("*", "a/b", true),
            ("", "", true),
        ] {
            let found = matches(pattern.as_bytes(), text.as_bytes());
            assert_eq!(found, expected, "{pattern} {text}");
        }
        // In no more time than it takes.
        assert!(!matches(&b"a*".repeat(40), &[b'a'; 39]));
    }

    #[test]
    fn a_pattern_may_match_from_any_name_on() {
        let mut exclude = Exclude::default();
        exclude.push("cache".into());
        exclude.push("a/*.tmp".into());
        for (path, expected) in [
            ("cache", true),
            ("x/cache", true),
            ("xcache", false),
            ("y/a/b.tmp", true),
            ("b.tmp", false),
            ("", false),
        ] {
            assert_eq!(exclude.has(path.as_bytes()), expected, "{path}");
        }
    }
}
