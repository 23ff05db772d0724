//! What documents say of the source is so: the tests that SECURITY.md names are there, public types
//! without an example do not become more, and files stay short enough to be read in one sitting.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Public types whose documentation has no example. It may only become less.
const WITHOUT_EXAMPLE: usize = 26;

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

/// The types, by the lines before them: their documentation is what begins with `///`.
fn without_example() -> Vec<String> {
    let mut names = Vec::new();
    for (path, text) in all(&["src"]) {
        let is_of_library = !path.to_string_lossy().contains("/bin/");
        let (mut is_documented, mut has_example) = (false, false);
        for line in text.lines().filter(|_| is_of_library) {
            if let Some(words) = line.strip_prefix("///") {
                is_documented = true;
                has_example |= words.trim_start().starts_with("```");
                continue;
            }
            let declared = ["pub struct ", "pub enum ", "pub trait "];
            let declared = declared.iter().find_map(|kind| line.strip_prefix(kind));
            if let (Some(rest), true, false) = (declared, is_documented, has_example) {
                let name = rest
                    .split(|c: char| !c.is_alphanumeric())
                    .next()
                    .unwrap_or_default();
                names.push(name.to_owned());
            }
            if !line.starts_with("#[") && !line.starts_with(' ') && !line.starts_with(")]") {
                (is_documented, has_example) = (false, false);
            }
        }
    }
    names.sort_unstable();
    names
}

#[test]
fn public_types_without_an_example_do_not_become_more() {
    let names = without_example();
    assert!(
        names.len() <= WITHOUT_EXAMPLE,
        "{} public types have no example, {WITHOUT_EXAMPLE} had none: {names:?}",
        names.len()
    );
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
