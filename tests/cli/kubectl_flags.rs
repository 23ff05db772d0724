//! Flags beside kubectl's: `docs/FLAGS.md` is what both programs' `--help` say, and each flag that
//! is missing is refused with what to use.
//!
//! With `KUBEWIRE_WRITE_FLAGS=1` the test writes the file.

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use crate::{kubectl, tool::Cluster};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/FLAGS.md");

const VERBS: [&str; 15] = [
    "exec",
    "attach",
    "port-forward",
    "logs",
    "cp",
    "debug",
    "get",
    "events",
    "wait",
    "api-resources",
    "auth can-i",
    "proxy",
    "version",
    "completion",
    "auth whoami",
];

/// Flags by their long names, with the short ones.
type Flags = BTreeMap<String, Option<String>>;

/// The flags that a help lists: those of kubectl stand four columns in, ours two or six.
fn flags(help: &str) -> Flags {
    let flag = |line: &str| {
        let text = line.trim_start();
        if line.len() - text.len() > 6 {
            return None;
        }
        let (short, long) = match text.split_once(", --") {
            Some((short, long)) if short.len() == 2 => (Some(short.to_owned()), long),
            _ => (None, text.strip_prefix("--")?),
        };
        let end = long.find(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        Some((format!("--{}", &long[..end.unwrap_or(long.len())]), short))
    };
    help.lines().filter_map(flag).collect()
}

fn written(long: &str, short: &Option<String>) -> String {
    match short {
        Some(short) => format!("`{short}`, `{long}`"),
        None => format!("`{long}`"),
    }
}

/// What the tool says of an argument that it has not.
async fn refusal(cluster: &Cluster, arguments: &[&str]) -> String {
    let ran = cluster.run(arguments).await;
    ran.is_error("is not here");
    let said = ran.stderr.trim_end().split_once("is not here: ").unwrap().1;
    let said = said.split("; this is the tool").next().unwrap();
    said.to_owned()
}

/// A table of kubectl's flags and ours, and a line of what only we have.
async fn compare(cluster: &Cluster, verb: &str, theirs: &Flags, ours: &Flags) -> String {
    let mut text = String::new();
    if !theirs.is_empty() {
        text.push_str("\n| kubectl | kubewire | instead |\n|---|---|---|\n");
    }
    let verb: Vec<_> = verb.split_whitespace().collect();
    for (long, short) in theirs {
        let there = written(long, short);
        let (here, instead) = match (ours.get(long), &**long) {
            (Some(ours), _) => {
                assert!(
                    short.is_none() || short == ours,
                    "{verb:?} {long}: {short:?}"
                );
                (written(long, ours), String::new())
            }
            (None, "--v") => (written("--verbosity", &Some("-v".into())), String::new()),
            (None, _) => {
                for flag in [Some(long), short.as_ref()].into_iter().flatten() {
                    let arguments = [&verb[..], &[flag]].concat();
                    refusal(cluster, &arguments).await;
                }
                let arguments = [&verb[..], &[long]].concat();
                ("–".to_owned(), refusal(cluster, &arguments).await)
            }
        };
        let _ = writeln!(text, "| {there} | {here} | {instead} |");
    }
    let alone = ours.iter().filter(|(long, _)| !theirs.contains_key(*long));
    let alone: Vec<_> = alone.map(|(long, short)| written(long, short)).collect();
    if !alone.is_empty() {
        let _ = writeln!(text, "\nOnly here: {}.", alone.join("; "));
    }
    text
}

#[tokio::test]
async fn every_flag_of_kubectl_s_is_here_or_refused_with_what_to_use() {
    let Some(kubectl) = kubectl::kubectl() else {
        return;
    };
    let cluster = Cluster::start().await;
    let help = async |program: &Path, arguments: &[&str]| {
        let (code, stdout, stderr) = cluster.run_program(program, arguments).await.into_text();
        assert_eq!((code, &*stderr), (Some(0), ""), "{arguments:?}");
        stdout
    };
    let tool = Path::new(crate::tool::KUBEWIRE);
    let version = help(&kubectl, &["version", "--client"]).await;
    let version = version.split(" v").nth(1).unwrap();
    let version: Vec<_> = version.split('.').take(2).collect();
    let title = format!("# Flags beside those of kubectl {}\n", version.join("."));
    let mut text = format!(
        "{title}\n\
         The test `kubectl_flags` makes this from what both programs print for `--help`, and fails \
         where it is not up to\ndate. A dash is a flag that is not here; what to use instead is what \
         the error says.\n\n## Verbs\n\n| kubectl | instead |\n|---|---|\n",
    );
    let ours = help(tool, &["--help"]).await;
    let verbs = help(&kubectl, &["--help"]).await;
    let verbs = verbs.lines().take_while(|line| !line.starts_with("Usage"));
    let verbs = verbs.filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next());
    for verb in verbs {
        let here = ours
            .lines()
            .any(|line| line.starts_with(&format!("  {verb} ")));
        let instead = match here {
            true => "here".to_owned(),
            false => refusal(&cluster, &[verb]).await,
        };
        let _ = writeln!(text, "| {verb} | {instead} |");
    }
    let everywhere = flags(&help(&kubectl, &["options"]).await);
    let mut shared = flags(&ours);
    shared.retain(|flag, _| flag != "--help" && flag != "--version");
    text.push_str("\n## All verbs\n");
    text += &compare(&cluster, "get", &everywhere, &shared).await;
    for verb in VERBS {
        let arguments: Vec<_> = verb.split(' ').chain(["--help"]).collect();
        let theirs = flags(&help(&kubectl, &arguments).await);
        let mut ours = help(tool, &arguments).await;
        let examples = ours.find("\nExamples:\n").expect("examples");
        ours.truncate(examples);
        let mut ours = flags(&ours);
        ours.retain(|flag, _| flag != "--help" && !shared.contains_key(flag));
        let _ = write!(text, "\n## {verb}\n");
        text += &compare(&cluster, verb, &theirs, &ours).await;
    }
    let committed = std::fs::read_to_string(FILE).unwrap_or_default();
    if std::env::var_os("KUBEWIRE_WRITE_FLAGS").is_some() {
        std::fs::write(FILE, &text).unwrap();
        return;
    }
    if !committed.starts_with(&title) {
        // What is missing has been refused all the same.
        println!("skipped: docs/FLAGS.md is of another version than {version:?}");
        return;
    }
    let differ = |(one, other): &(&str, &str)| one != other;
    let difference = text.lines().zip(committed.lines()).find(differ);
    assert!(
        text == committed,
        "docs/FLAGS.md is not up to date (run this test with KUBEWIRE_WRITE_FLAGS=1): {difference:?}"
    );
}

#[tokio::test]
async fn what_only_kubectl_has_is_named_with_what_to_use() {
    let cluster = Cluster::start().await;
    for (arguments, what) in [
        (
            &["get", "pods", "-k", "."][..],
            "kubectl's -k is not here: use `kubectl kustomize",
        ),
        (
            &["--profile=cpu", "get", "pods"],
            "kubectl's --profile is not here",
        ),
        (
            &["auth", "whoami", "-o", "json"],
            "kubectl's -o is not here",
        ),
        (
            &["get", "pods", "-o", "go-template={{.}}"],
            "kubectl's -o go-template is not here",
        ),
        (&["describe", "pod", "web-0"], "use kubectl describe"),
    ] {
        cluster.run(arguments).await.is_error(what);
    }
    // A flag of another verb, and of nobody.
    let foreign = cluster
        .run(&["exec", "web-0", "--www=x", "--", "true"])
        .await;
    foreign.is_error("unexpected argument '--www'");
    let remote = ["exec", "web-0", "--", "echo", "--www", "-w", "describe"];
    cluster.run(&remote).await.is(0, "--www -w describe\n", "");
}
