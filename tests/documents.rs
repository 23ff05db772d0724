//! What documents say of the source is so: the tests that SECURITY.md names are there, public types
//! have examples, and files stay short enough to be read in one sitting.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Public types whose documentation has no example, and the type whose example has them: what one
/// hands to the other shows nothing alone.
const SHOWN_ELSEWHERE: &[(&str, &str)] = &[
    ("Abort", "Mux"),
    ("AllEvent", "RunningAll"),
    ("AllOutput", "RunningAll"),
    ("Alpn", "Connector"),
    ("Connection", "Connector"),
    ("ConnectionId", "PortForward"),
    ("DebugProfile", "DebugContainer"),
    ("Due", "Keepalive"),
    ("EventType", "Event"),
    ("ForwardConfig", "PortForward"),
    ("ForwardEvent", "PortForward"),
    ("Forwarded", "ForwardSplice"),
    ("GoAwayStatus", "GoAway"),
    ("Head", "Exchange"),
    ("HeaderWriter", "HeaderReader"),
    ("Hint", "ApiError"),
    ("LineEnd", "LineSplitter"),
    ("ListenEvent", "Listener"),
    ("LogEnd", "LogUpdate"),
    ("LogRequest", "LogConfig"),
    ("MessagesEvent", "Messages"),
    ("MirrorCursor", "SharedMirror"),
    ("MirrorUpdate", "MirrorChanges"),
    ("MuxConfig", "Mux"),
    ("MuxEvent", "Mux"),
    ("MuxKeepalive", "Mux"),
    ("Namespaced", "Kind"),
    ("Opcode", "FrameHeader"),
    ("OpenError", "Mux"),
    ("Reason", "LeftOut"),
    ("RemoteCommandEvent", "RemoteCommand"),
    ("Request", "Watch"),
    ("RestartPolicy", "PodBuilder"),
    ("Role", "RemoteCommand"),
    ("RstStatus", "RstStream"),
    ("Rule", "ApiServerBuilder"),
    ("Scope", "Kind"),
    ("ShardField", "Shard"),
    ("SourcedLine", "MergedLines"),
    ("Spdy", "PortForward"),
    ("Streams", "RemoteCommand"),
    ("Tapped", "Splice"),
    ("Upgraded", "MaybeUpgraded"),
    ("WatchConfig", "Watch"),
];

/// Lines of the longest file in `src`, its tests left out.
const SOURCE_LINES: usize = 500;

/// Lines of the longest file of tests.
const TEST_LINES: usize = 700;

fn sources(directory: &Path, found: &mut Vec<(PathBuf, String)>) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            sources(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)?;
            found.push((path, text));
        }
    }
    Ok(())
}

fn all(directories: &[&str]) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for directory in directories {
        sources(&root.join(directory), &mut found).expect("the sources can be read");
    }
    found
}

#[test]
fn tests_that_the_threat_model_names_are_there() {
    let text = include_str!("../SECURITY.md");
    let rows = text.lines().filter(|line| line.starts_with("| to "));
    let named: Vec<_> = rows
        .flat_map(|row| {
            let tests = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
            tests.split(", ").map(|name| name.trim_matches('`'))
        })
        .collect();
    assert!(named.len() > 10, "{named:?}");
    let sources = all(&["src", "tests"]);
    for name in named {
        let is_test = |text: &str| text.contains(&format!("fn {name}("));
        assert!(
            sources.iter().any(|(_, text)| is_test(text)),
            "there is no test {name}"
        );
    }
}

/// The types and the code of their examples, which is empty without one, by the lines before them:
/// their documentation is what begins with `///`.
fn examples() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (path, text) in all(&["src"]) {
        if path.to_string_lossy().contains("/bin/") {
            continue;
        }
        let (mut is_documented, mut in_example, mut example) = (false, false, String::new());
        for line in text.lines() {
            if let Some(words) = line.strip_prefix("///") {
                is_documented = true;
                if words.trim_start().starts_with("```") {
                    in_example = !in_example;
                }
                if in_example {
                    example.push_str(words);
                    example.push('\n');
                }
                continue;
            }
            let declared = ["pub struct ", "pub enum ", "pub trait "];
            let declared = declared.iter().find_map(|kind| line.strip_prefix(kind));
            if let (Some(rest), true) = (declared, is_documented) {
                let name = rest.split(|c: char| !c.is_alphanumeric()).next();
                found.push((name.unwrap_or_default().to_owned(), example.clone()));
            }
            if !line.starts_with("#[") && !line.starts_with(' ') && !line.starts_with(")]") {
                (is_documented, in_example) = (false, false);
                example.clear();
            }
        }
    }
    found.sort_unstable();
    found
}

#[test]
fn public_types_have_examples() {
    let examples = examples();
    assert!(examples.len() > 200, "{}", examples.len());
    let mut without: Vec<_> = examples
        .iter()
        .filter_map(|(name, code)| code.is_empty().then_some(name.as_str()))
        .collect();
    without.dedup();
    let expected: Vec<_> = SHOWN_ELSEWHERE.iter().map(|(name, _)| *name).collect();
    assert_eq!(without, expected);
    for (name, by) in SHOWN_ELSEWHERE {
        let words = |code: &str| {
            let mut words = code.split(|c: char| !c.is_alphanumeric());
            words.any(|word| word == *name)
        };
        let shown = examples
            .iter()
            .any(|(owner, code)| owner == by && words(code));
        assert!(shown, "the example of {by} does not show {name}");
    }
}

/// Lines of a file that are no tests, and lines that are.
fn lines(path: &Path, text: &str) -> (usize, usize) {
    let is_test = |part: &std::path::Component<'_>| {
        let part = part.as_os_str();
        part == "tests" || part == "tests.rs"
    };
    let lines = text.lines().count();
    if path.components().any(|part| is_test(&part)) {
        return (0, lines);
    }
    let source = text.find("#[cfg(test)]\nmod tests {");
    let source = source.map_or(lines, |end| text[..end].lines().count());
    (source, lines - source)
}

#[test]
fn files_are_short() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut long = Vec::new();
    for (path, text) in all(&["src", "tests"]) {
        let path = path.strip_prefix(root).expect("it is below the root");
        let (source, tests) = lines(path, &text);
        if source > SOURCE_LINES || tests > TEST_LINES {
            long.push(format!(
                "{}: {source} lines and {tests} of tests",
                path.display()
            ));
        }
    }
    assert!(long.is_empty(), "{long:#?}");
}
