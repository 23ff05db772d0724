//! The imports between the top-level modules of `src` go down only.
//!
//! Tests inside the library are left out: they may look at a module from above.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Each module and what it may import, lowest first: nothing that stands below it in this list.
const ARROWS: &[(&str, &[&str])] = &[
    ("role", &[]),
    ("limits", &[]),
    ("delegate", &[]),
    ("wire", &["role", "limits"]),
    ("error", &["limits", "wire"]),
    ("resource", &["wire", "error"]),
    ("session", &["role", "limits", "wire", "error"]),
    ("config", &["limits", "error"]),
    ("net", &["limits", "delegate", "error", "config"]),
    ("auth", &["limits", "error", "config", "net"]),
    (
        "transport",
        &[
            "role", "limits", "delegate", "wire", "error", "session", "net", "auth",
        ],
    ),
    (
        "client",
        &[
            "role",
            "limits",
            "wire",
            "error",
            "resource",
            "session",
            "config",
            "net",
            "auth",
            "transport",
        ],
    ),
    (
        "server",
        &["role", "limits", "wire", "error", "session", "transport"],
    ),
    (
        "gateway",
        &["wire", "error", "session", "transport", "client", "server"],
    ),
    (
        "testing",
        &[
            "role",
            "limits",
            "wire",
            "error",
            "resource",
            "session",
            "config",
            "net",
            "transport",
            "server",
        ],
    ),
    (
        "example",
        &[
            "role",
            "session",
            "transport",
            "client",
            "server",
            "testing",
        ],
    ),
];

/// What `lib.rs` lifts to the crate's root, and where it comes from. The empty module is `lib.rs`
/// itself.
const LIFTED: &[(&str, &str)] = &[
    ("AGENT", ""),
    ("REQUESTS", ""),
    ("AnyWebSocket", "transport"),
    ("Client", "client"),
    ("Config", "config"),
    ("Error", "error"),
    ("KeepaliveConfig", "session"),
    ("Over", "client"),
    ("Pod", "client"),
    ("Resource", "resource"),
    ("Result", "error"),
    ("Role", "role"),
    // From the module inside `resource` that seals it.
    ("Scope", "resource"),
];

/// A name that a file takes from the crate's root.
#[derive(Debug, PartialEq, Eq)]
struct Import {
    line: usize,
    name: String,
}

/// Blanks comments, strings and character literals, lines staying where they are, and cuts the
/// file at its tests.
fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = raw_string(rest).filter(|_| !code.ends_with(is_word)) {
            length
        } else if first == '"' {
            string(rest)
        } else if first == '\'' {
            character(rest)
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        code.extend(rest[..length].chars().filter(|&c| c == '\n'));
        code.push(' ');
        rest = &rest[length..];
    }
    let tests = code.find("#[cfg(test)]\nmod ").unwrap_or(code.len());
    code.truncate(tests);
    code
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn raw_string(text: &str) -> Option<usize> {
    let text = text.strip_prefix('r')?;
    let hashes = text.bytes().take_while(|&byte| byte == b'#').count();
    let text = text[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    Some(1 + hashes + 1 + text.find(&close)? + close.len())
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// A character literal; of a lifetime only the quote.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => text[3..].find('\'').map_or(1, |end| 3 + end + 1),
        Some(_) => match chars.next() {
            Some((at, '\'')) => at + 1,
            _ => 1,
        },
        None => 1,
    }
}

/// How many modules deep a file of `src` is: 1 for `net/mod.rs`, 2 for `net/tls.rs`.
fn depth(file: &Path) -> usize {
    file.components().count() - usize::from(file.ends_with("mod.rs"))
}

/// All names that a file takes from the crate's root, by `crate::` or by enough `super::`.
fn imports(file: &Path, text: &str) -> Vec<Import> {
    let code = code(text);
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if !code[..at].ends_with(is_word) {
            names(&code, at + "crate::".len(), &mut found);
        }
    }
    let climb = "super::".repeat(depth(file));
    for (at, _) in code.match_indices(&climb) {
        if !code[..at].ends_with([':']) && !code[..at].ends_with(is_word) {
            names(&code, at + climb.len(), &mut found);
        }
    }
    found
}

/// The first segments of the path, or of each path of the group, that begins here.
fn names(code: &str, at: usize, found: &mut Vec<Import>) {
    let word = |at: usize| {
        let name: String = code[at..].chars().take_while(|&c| is_word(c)).collect();
        let line = code[..at].matches('\n').count() + 1;
        (!name.is_empty()).then_some(Import { line, name })
    };
    if !code[at..].starts_with('{') {
        found.extend(word(at));
        return;
    }
    let (mut level, mut first) = (0, true);
    for (offset, c) in code[at..].char_indices() {
        match c {
            '{' => level += 1,
            '}' if level == 1 => return,
            '}' => level -= 1,
            ',' if level == 1 => first = true,
            c if level == 1 && first && is_word(c) => {
                found.extend(word(at + offset));
                first = false;
            }
            _ => {}
        }
    }
}

fn module_of(name: &str) -> &str {
    LIFTED
        .iter()
        .find(|(lifted, _)| *lifted == name)
        .map_or(name, |(_, module)| module)
}

fn files(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            if name != "bin" {
                files(&path, into);
            }
        } else if name.ends_with(".rs") && name != "tests.rs" && name != "lib.rs" {
            into.push(path);
        }
    }
}

#[test]
fn the_arrows_themselves_go_down() {
    let mut below = BTreeSet::new();
    for (module, allowed) in ARROWS {
        for other in *allowed {
            assert!(below.contains(other), "{module} -> {other} is no way down");
        }
        assert!(below.insert(module), "{module} stands twice");
    }
}

#[test]
fn the_imports_between_modules_are_exactly_the_arrows() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let arrows: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    let mut paths = Vec::new();
    files(&src, &mut paths);
    assert!(paths.len() > 100, "{} files", paths.len());
    let (mut wrong, mut used) = (Vec::new(), BTreeSet::new());
    for path in paths {
        let file = path.strip_prefix(&src).unwrap();
        let own = file.iter().next().unwrap().to_str().unwrap();
        let own = own.strip_suffix(".rs").unwrap_or(own);
        let Some(allowed) = arrows.get(own) else {
            wrong.push(format!("src/{}: {own} has no arrows", file.display()));
            continue;
        };
        for Import { line, name } in imports(file, &fs::read_to_string(&path).unwrap()) {
            let module = module_of(&name);
            if module == own || module.is_empty() {
                continue;
            }
            used.insert((own.to_owned(), module.to_owned()));
            if !allowed.contains(&module) {
                let place = file.display();
                wrong.push(format!(
                    "src/{place}:{line}: {own} -> {module} (crate::{name})"
                ));
            }
        }
    }
    for (own, allowed) in ARROWS {
        for other in *allowed {
            if !used.contains(&((*own).to_owned(), (*other).to_owned())) {
                wrong.push(format!("{own} -> {other} is allowed and not used"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn imports_are_found_in_whatever_form() {
    let text = r##"
        // use crate::comment::X;
        use crate::net::Connector;
        use crate::{Result, auth::{self, exec::crate_x}, wire::{
            a::{b, c}, d}, limits};
        fn f(x: crate::config::Auth) -> &'static str { "crate::string" }
        const Q: char = '"'; use super::super::role::Role; use super::sibling;
        const R: &str = r#"crate::raw ""#; macro_rules! m { () => { $crate::error::E } }
"##;
    let text = format!("{text}#[cfg(test)]\nmod tests {{ use crate::testing::X; }}");
    let found = imports(Path::new("net/tls.rs"), &text);
    let mut found: Vec<_> = found.iter().map(|i| (i.line, i.name.as_str())).collect();
    found.sort_unstable();
    let expected = [
        (3, "net"),
        (4, "Result"),
        (4, "auth"),
        (4, "wire"),
        (5, "limits"),
        (6, "config"),
        (7, "role"),
        (8, "error"),
    ];
    assert_eq!(found, expected);
}

#[test]
fn the_links_of_the_architecture_lead_somewhere() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let text = fs::read_to_string(docs.join("ARCHITECTURE.md")).unwrap();
    let links: Vec<_> = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(link, _)| link)
        .filter(|link| link.starts_with("../"))
        .collect();
    assert!(!links.is_empty());
    for link in links {
        assert!(docs.join(link).exists(), "{link}");
    }
}
