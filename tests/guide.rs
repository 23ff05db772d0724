//! The code of docs/guide: it runs here, against the embedded server, and stands there as it is
//! here. `KUBEWIRE_GUIDE=write cargo test --test guide` brings the pages up to date.
//!
//! A block of a page follows the line `<!-- NAME -->` and is what stands in the page's file between
//! `// [NAME]` and `// [end]`.

#![cfg(unix)]

mod guide {
    mod attach;
    mod copy;
    mod exec;
    mod from_kube_rs;
    mod gateways;
    mod logs;
    mod port_forward;
    mod questions;
    mod requests;
    mod testing;
    mod watch;
}

use std::{fs, path::Path};

use kubewire::{Client, testing::ApiServer};

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// A server with the pod `default/web-0`, whose container `main` only sleeps.
async fn serve() -> Result<(ApiServer, Client)> {
    let server = ApiServer::builder()
        .pod("default", "web-0", |pod| {
            let pod = pod.label("app", "web");
            pod.container("main", ["sleep", "infinity"])
        })
        .start()
        .await?;
    let client = Client::new(&server.config())?;
    Ok((server, client))
}

/// What a page's file has under a name, without its indentation.
fn region(source: &str, name: &str) -> Option<String> {
    let (_, rest) = source.split_once(&format!("// [{name}]\n"))?;
    let (code, _) = rest.split_once("// [end]")?;
    let indent = code.len() - code.trim_start_matches(' ').len();
    let lines = code.trim_end().lines();
    Some(
        lines
            .map(|line| format!("{}\n", line.get(indent..).unwrap_or_default()))
            .collect(),
    )
}

/// The page with each of its blocks as the source has it.
fn filled(page: &str, source: &str) -> Result<String> {
    let mut out = String::new();
    let mut lines = page.split_inclusive('\n').peekable();
    let mut named = false;
    while let Some(line) = lines.next() {
        if line.trim_end() == "```rust" && !named {
            return Err("a block of code that does not say where it runs".into());
        }
        out.push_str(line);
        let name = line
            .trim()
            .strip_prefix("<!-- ")
            .and_then(|line| line.strip_suffix(" -->"));
        named = name.is_some();
        let Some(name) = name else { continue };
        if lines
            .peek()
            .is_some_and(|line| line.trim_end() == "```rust")
        {
            lines.by_ref().find(|line| line.trim_end() == "```");
        }
        let code = region(source, name).ok_or_else(|| format!("there is no region {name}"))?;
        out.push_str(&format!("```rust\n{code}```\n"));
    }
    Ok(out)
}

#[test]
fn the_code_on_the_pages_is_the_code_that_runs() -> Result {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut blocks = 0;
    for page in fs::read_dir(root.join("docs/guide"))? {
        let path = page?.path();
        let name = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .ok_or("a page has a name")?;
        if name == "README" {
            continue;
        }
        let source = root
            .join("tests/guide")
            .join(name.replace('-', "_") + ".rs");
        let (page, mut source) = (fs::read_to_string(&path)?, fs::read_to_string(source)?);
        if name == "from-kube-rs" {
            // kube's own client is no dependency here: CI runs this program with it.
            let with_kube = root.join("benches/peers/examples/bridge.rs");
            source.push_str(&fs::read_to_string(with_kube)?);
        }
        let right = filled(&page, &source).map_err(|error| format!("{name}: {error}"))?;
        if std::env::var_os("KUBEWIRE_GUIDE").is_some() {
            fs::write(&path, &right)?;
        } else {
            assert_eq!(page, right, "docs/guide/{name}.md");
        }
        // What runs and is not shown would go stale unseen.
        for line in source.lines() {
            let region = line
                .trim()
                .strip_prefix("// [")
                .and_then(|rest| rest.strip_suffix(']'));
            if let Some(region) = region.filter(|region| *region != "end") {
                let shown = right.contains(&format!("<!-- {region} -->"));
                assert!(shown, "docs/guide/{name}.md does not show {region}");
                blocks += 1;
            }
        }
    }
    assert!(blocks > 0);
    Ok(())
}
