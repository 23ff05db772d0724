//! `get` and what else prints what a server says: answers that are not what was asked for, and
//! texts that a terminal must not obey.

use kubewire::{Resource, testing::ApiServer};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpListener,
};

use crate::{
    kubectl,
    tool::{Cluster, Ran, squeeze},
};

/// A server that knows the resource `things`, and answers to a request for them in these words.
async fn answering(body: &str) -> String {
    let body = body.to_owned();
    serving(move |_| (body.len(), body.clone())).await
}

/// A server that knows the resource `things`, and answers to a request for them, by its path and
/// query, a body that is said to have so many bytes.
pub(crate) async fn serving(
    things: impl Fn(&str) -> (usize, String) + Clone + Send + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = BufReader::new(stream);
            let (mut request, mut line) = (String::new(), String::new());
            while stream.read_line(&mut line).await.unwrap() > 2 {
                if request.is_empty() {
                    request.clone_from(&line);
                }
                line.clear();
            }
            let target = request.split(' ').nth(1).unwrap_or_default();
            let known = match target.split('?').next().unwrap_or_default() {
                "/api" => Some(json!({"kind": "APIVersions", "versions": ["v1"]})),
                "/apis" => Some(json!({"kind": "APIGroupList", "groups": []})),
                "/api/v1" => Some(json!({
                    "kind": "APIResourceList",
                    "groupVersion": "v1",
                    "resources": [{
                        "name": "things", "singularName": "thing", "namespaced": true,
                        "kind": "Thing", "verbs": ["get", "list"],
                    }],
                })),
                _ => None,
            };
            let known = known.map(|known| known.to_string());
            let known = known.map(|known| (known.len(), known));
            let (length, body) = known.unwrap_or_else(|| things(target));
            let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json";
            let answer = format!("{head}\r\nContent-Length: {length}\r\n\r\n{body}");
            // Who has read enough may go.
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    format!("http://{address}")
}

async fn get(cluster: &Cluster, answer: &str, arguments: &[&str]) -> Ran {
    let url = answering(answer).await;
    let arguments = [&["-s", &url, "get", "things"], arguments].concat();
    cluster.run(&arguments).await
}

#[tokio::test]
async fn a_server_without_tables_is_asked_for_names_and_ages() {
    let cluster = Cluster::start().await;
    let object = |name: &str, namespace: &str| {
        let created = "2020-01-01T00:00:00Z";
        json!({"metadata": {"name": name, "namespace": namespace, "creationTimestamp": created}})
    };
    let list = json!({
        "kind": "ThingList", "apiVersion": "v1", "metadata": {},
        "items": [object("a", "ns"), object("longer", "ns")],
    })
    .to_string();
    let ran = get(&cluster, &list, &[]).await;
    let years = |text: &str| text.contains('y');
    let (code, stdout, stderr) = ran.into_text();
    assert_eq!((code, &*stderr), (Some(0), ""));
    let rows: Vec<Vec<_>> = stdout
        .lines()
        .map(|row| row.split_whitespace().collect())
        .collect();
    assert_eq!(
        (rows.len(), &rows[0][..]),
        (3, &["NAME", "AGE"][..]),
        "{stdout}"
    );
    assert!(rows[1][0] == "a" && years(rows[1][1]), "{stdout}");
    let all = get(&cluster, &list, &["-A"]).await.into_text().1;
    assert!(
        all.starts_with("NAMESPACE   NAME     AGE\nns          a "),
        "{all}"
    );
    let names = get(&cluster, &list, &["-o", "name"]).await;
    names.is(0, "thing/a\nthing/longer\n", "");
    let one = get(&cluster, &object("a", "ns").to_string(), &["a"]).await;
    assert!(one.into_text().1.starts_with("NAME   AGE\na "));
    let empty = json!({"kind": "ThingList", "items": []}).to_string();
    let none = "No resources found in default namespace.\n";
    get(&cluster, &empty, &[]).await.is(0, "", none);
}

#[tokio::test]
async fn an_answer_that_is_not_understood_is_an_error_in_every_form() {
    let cluster = Cluster::start().await;
    let failure = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "the disk is full", "reason": "InternalError", "code": 500,
    })
    .to_string();
    for form in [
        &[][..],
        &["-o", "name"],
        &["-o", "wide"],
        &["-o", "json"],
        &["-o", "yaml"],
        &["a"],
    ] {
        get(&cluster, &failure, form)
            .await
            .is_error("the disk is full");
    }
    for (answer, what) in [
        ("{}", "neither a table nor objects"),
        ("", "not JSON"),
        ("<html>log in</html>", "<html>log in"),
        (r#"{"kind":"ThingList"}"#, "a list without items"),
        (r#"{"kind":"Table"}"#, "a Table"),
    ] {
        get(&cluster, answer, &[]).await.is_error(what);
    }
    // The same of what selects pods by a list.
    let url = answering(&failure).await;
    let logs = ["-s", &url, "logs", "-l", "app=web"];
    cluster.run(&logs).await.is_error("the disk is full");
    let whoami = ["-s", &url, "auth", "whoami"];
    cluster.run(&whoami).await.is_error("the disk is full");
    let url = answering("{}").await;
    let logs = ["-s", &url, "logs", "-l", "app=web"];
    cluster.run(&logs).await.is_error("no list with items");
    let whoami = ["-s", &url, "auth", "whoami"];
    cluster
        .run(&whoami)
        .await
        .is_error("does not say who the user is");
}

/// What a terminal would obey, or another line.
fn is_harmless(text: &str) -> bool {
    let controls = |c: char| c.is_control() && c != '\n';
    !text.contains(controls) && !text.contains('\u{202e}')
}

#[tokio::test]
async fn documents_are_whole_in_a_pipe_and_harmless_on_a_terminal() {
    let text = "all:\n\tcc -o x\r\n\u{1b}[2J\u{9b}2J\u{202e}";
    let server = ApiServer::builder().start().await.unwrap();
    let maps = Resource::namespaced("", "v1", "configmaps");
    let metadata = json!({"name": "c", "namespace": "default"});
    server.put(
        &maps,
        json!({"kind": "ConfigMap", "metadata": metadata, "data": {"k": text}}),
    );
    let cluster = Cluster::around(server);
    let path = ["get", "cm", "c", "-o", "jsonpath={.data.k}"];
    let yaml = ["get", "cm", "c", "-o", "yaml"];
    assert_eq!(cluster.run(&path).await.into_text().1, text);
    let object: Value = serde_saphyr::from_str(&cluster.run(&yaml).await.into_text().1).unwrap();
    assert_eq!(object["data"]["k"], text);
    for form in [path, yaml] {
        let mut tool = cluster.on_terminal(&form);
        while tool.read().await {}
        // The terminal ends lines itself.
        let seen = tool.seen.replace("\r\n", "\n").replace('\t', " ");
        assert!(seen.contains("cc -o x") && is_harmless(&seen), "{seen:?}");
    }
}

#[tokio::test]
async fn names_and_messages_do_nothing_to_a_terminal() {
    let hostile = "a\u{1b}]0;owned\u{7}\u{9b}2J\u{202e}\nNAME x";
    let server = ApiServer::builder().start().await.unwrap();
    let things = Resource::namespaced("example.com", "v1", "things");
    let metadata = json!({"name": hostile, "namespace": "default"});
    let object = json!({"kind": "Thing", "metadata": metadata});
    server.put(&things, object.clone());
    let cluster = Cluster::around(server);
    for form in [&[][..], &["-A"], &["-o", "name"], &["-o", "json"]] {
        let arguments = [&["get", "things"], form].concat();
        let (code, stdout, stderr) = cluster.run(&arguments).await.into_text();
        assert_eq!((code, &*stderr), (Some(0), ""), "{form:?}");
        assert!(is_harmless(&stdout), "{form:?}: {stdout:?}");
        if form != ["-o", "json"] {
            assert!(stdout.contains("a^[]0;owned^G"), "{form:?}: {stdout:?}");
        }
    }
    let json = cluster.run(&["get", "things", "-o", "json"]).await;
    let list: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(list["items"][0]["metadata"]["name"], hostile);

    for form in [&[][..], &["-A"], &["-o", "name"], &["-o", "json"]] {
        let arguments = [&["watch", "things", "--no-headers"], form].concat();
        let mut tool = cluster.start_tool(&arguments);
        let line = tool.line().await;
        assert!(is_harmless(&line), "{form:?}: {line:?}");
        if form == ["-o", "json"] {
            let event: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(event["object"]["metadata"]["name"], hostile);
        }
    }

    let missing = cluster
        .run(&["get", "things", "x\u{1b}[2J\u{9b}31m\ny"])
        .await;
    missing.is_error("^[[2J");
    assert!(is_harmless(&missing.stderr), "{:?}", missing.stderr);
    let verbose = cluster
        .run(&["-v=9", "get", "things", "x\u{1b}[2J\u{9b}31m\ny"])
        .await;
    assert!(is_harmless(&verbose.stderr), "{:?}", verbose.stderr);
}

/// Pods with labels, and a thing.
async fn labelled() -> Cluster {
    let server = ApiServer::builder()
        .pod("default", "web-0", |pod| {
            let pod = pod.label("app", "web").label("example.com/tier", "front");
            pod.container("main", ["sleep", "infinity"])
        })
        .pod("default", "db-0", |pod| {
            pod.label("app", "db")
                .container("main", ["sleep", "infinity"])
        })
        .start()
        .await
        .unwrap();
    let things = Resource::namespaced("example.com", "v1", "things");
    // Words that YAML would take for something else without quotes.
    let object = json!({
        "apiVersion": "example.com/v1",
        "kind": "Thing",
        "metadata": {
            "name": "odd",
            "namespace": "default",
            "managedFields": [{"manager": "m", "operation": "Update"}],
        },
        "spec": {
            "yes": "no", "number": "012", "float": "1e3", "null": "~", "empty": "", "text": "a: b",
            "lines": "one\ntwo\n", "time": "2020-01-01", "list": [1, true, null, {"x": []}],
            "markup": "<b>&</b>", "floats": [1.5, 1e30, 2.5e-9, 100.0, 1234567.5], "odd": {},
            "a10": "10.0.0.1", "a9": "*", "a\nb": {"x": 1}, "tabs": "a\tb\u{1f600}", "blank": "a \nb", "lists": [[1, [2]]],
            "long": "words ".repeat(40).trim_end(), "quoted": format!("'{}", " words".repeat(40)),
            "double": "\ttwo  words".repeat(20), &"k ".repeat(70): ["x"], "indented": "\n  a\n b\n\n",
        },
    });
    server.put(&things, object);
    Cluster::around(server)
}

/// Things of several sizes, with a change to each of them from time to time.
async fn sized() -> Cluster {
    let server = ApiServer::builder().start().await.unwrap();
    let things = Resource::namespaced("example.com", "v1", "things");
    for (name, size, count) in [("a", "2Gi", 3), ("b", "100Mi", 12), ("c", "500m", 5)] {
        let metadata = json!({"name": name, "namespace": "default", "labels": {"size": size}});
        let spec = json!({"size": size, "count": count, "parts": [{"p": 1}, {"p": name}]});
        let kind = json!("Thing");
        let version = json!("example.com/v1");
        server.put(
            &things,
            json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}),
        );
    }
    Cluster::around(server)
}

#[tokio::test]
async fn templates_columns_and_orders_are_kubectl_s() {
    let cluster = sized().await;
    let kubectl = kubectl::kubectl();
    let file = |name: &str, text: &str| {
        let file = cluster.dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let template = file(
        "template",
        "{range .items[*]}{.metadata.name}{\"\\t\\n\"}{end}",
    );
    let columns = file("columns", "NAME  COUNT\n.metadata.name {.spec.count}\n");
    let by_file = format!("jsonpath-file={template}");
    let columns = format!("custom-columns-file={columns}");
    for (arguments, expected) in [
        (
            &["-o", "jsonpath={.items[*].metadata.name}"][..],
            Some("a b c"),
        ),
        (&["-o", &by_file], Some("a\t\nb\t\nc\t\n")),
        (&["-o", "jsonpath", "--template", "{.kind}"], Some("List")),
        (&["a", "-o", "jsonpath={.spec}"], None),
        (&["a", "-o", "jsonpath-as-json={.spec.parts[*]}"], None),
        (
            &["a", "-o=jsonpath={.none}", "--allow-missing-template-keys"],
            Some(""),
        ),
        (&["-o", "jsonpath={..p}"], None),
        (
            &[
                "-o",
                "custom-columns=N:.metadata.name,P:.spec.parts,X:.none,Q:.spec.parts[*].p",
            ],
            None,
        ),
        (
            &["-o", "custom-columns=N:metadata.name", "--no-headers"],
            Some("a\nb\nc\n"),
        ),
        (
            &["-o", &columns],
            Some("NAME   COUNT\na      3\nb      12\nc      5\n"),
        ),
        (&["-o", "name", "--sort-by", ".spec.count"], None),
        (&["-o", "json", "--sort-by", "{.spec.size}"], None),
        (
            &[
                "-o",
                "jsonpath={.items[*].spec.count}",
                "--sort-by=spec.count",
            ],
            Some("3 5 12"),
        ),
        (&["-L", "size", "--sort-by", ".spec.size"], None),
        (
            &["--no-headers", "--sort-by", ".spec.count", "--chunk-size=1"],
            None,
        ),
        (&["--chunk-size=1"], None),
        (&["--chunk-size=2", "-o", "json"], None),
        (&["--chunk-size=0", "-o", "yaml"], None),
    ] {
        println!("{arguments:?}");
        let arguments = [&["get", "things"], arguments].concat();
        let (code, stdout, stderr) = cluster.run(&arguments).await.into_text();
        assert_eq!((code, &*stderr), (Some(0), ""), "{stdout}");
        if let Some(expected) = expected {
            assert_eq!(stdout, expected);
        }
        let Some(kubectl) = &kubectl else { continue };
        let theirs = cluster.run_program(kubectl, &arguments).await.into_text();
        let is_table = !arguments.iter().any(|a| a.starts_with("-o"));
        if is_table {
            assert_eq!(rows(&stdout), rows(&theirs.1), "{}", theirs.2);
        } else {
            assert_eq!(stdout, theirs.1, "{}", theirs.2);
        }
    }
    for (arguments, what) in [
        (&["-o", "jsonpath={.a"][..], "unclosed action"),
        (&["-o", "jsonpath="], "needs a template"),
        (
            &[
                "-o",
                "jsonpath={.none}",
                "--allow-missing-template-keys=false",
            ],
            "none is not found",
        ),
        (&["-o", "custom-columns=NAME"], "is not HEADING:PATH"),
        (&["-o", "custom-columns-file=/no/such"], "/no/such"),
        (
            &["-o", "go-template={{.}}"],
            "kubectl's -o go-template is not here",
        ),
        (
            &["-o", "xml"],
            "-o xml is not known; there are custom-columns=",
        ),
        (
            &["-o", "json", "--show-labels"],
            "labels are columns of a table",
        ),
        (&["--sort-by", ".none"], "no object has a field .none"),
        (&["--sort-by", ".spec"], "neither a number nor a text"),
        (&["--output-watch-events"], "is for --watch"),
        (&["--subresource", "status"], "not of a list"),
        (&["a", "--subresource", "nothing"], "\"a\" not found"),
        (&["a", "b", "-w"], "watched at a time"),
        (&["none", "-w"], "not found"),
    ] {
        let arguments = [&["get", "things"], arguments].concat();
        cluster.run(&arguments).await.is_error(what);
    }
}

#[tokio::test]
async fn objects_of_files_are_found_by_type_and_name() {
    let cluster = sized().await;
    let kubectl = kubectl::kubectl();
    let root = cluster.dir.path().join("files");
    std::fs::create_dir_all(root.join("below")).unwrap();
    let thing = |name: &str| {
        let head = "apiVersion: example.com/v1\nkind: Thing\nmetadata:\n  name: ";
        format!("{head}{name}\n  namespace: default\n")
    };
    std::fs::write(
        root.join("one.yaml"),
        format!("{}---\n{}", thing("b"), thing("a")),
    )
    .unwrap();
    std::fs::write(root.join("below/two.yml"), thing("c")).unwrap();
    std::fs::write(root.join("notes.txt"), "nothing").unwrap();
    let root = root.to_str().unwrap();
    let one = format!("{root}/one.yaml");
    let two = format!("{root}/below/two.yml");
    for (arguments, expected) in [
        (
            &["-f", &one][..],
            "thing.example.com/b\nthing.example.com/a\n",
        ),
        (&["-f", root], "thing.example.com/b\nthing.example.com/a\n"),
        (
            &["-R", "-f", root],
            "thing.example.com/c\nthing.example.com/b\nthing.example.com/a\n",
        ),
        (
            &["-f", &two, "-f", &one],
            "thing.example.com/c\nthing.example.com/b\nthing.example.com/a\n",
        ),
    ] {
        println!("{arguments:?}");
        let names = [&["get", "-o", "name"], arguments].concat();
        let json = [&["get", "-o", "json"], arguments].concat();
        let ours = cluster.run(&json).await.into_text();
        assert_eq!((ours.0, &*ours.2), (Some(0), ""));
        let Some(kubectl) = &kubectl else {
            cluster.run(&names).await.is(0, expected, "");
            continue;
        };
        let theirs = cluster.run_program(kubectl, &names).await.into_text();
        cluster.run(&names).await.is(0, &theirs.1, "");
        assert_eq!(
            ours.1,
            cluster.run_program(kubectl, &json).await.into_text().1
        );
    }
    let stdin = cluster
        .run_with_input(&["get", "-f", "-", "-o", "name"], thing("a").as_bytes())
        .await;
    stdin.is(0, "thing.example.com/a\n", "");
    for (arguments, what) in [
        (&["-f", &one, "-n", "other"][..], "is of namespace default"),
        (&["-f", "/no/such"], "/no/such"),
        (&["-f", "https://example.com/x.yaml"], "are not fetched"),
        (&["-R", "things"], "-R is for the directories"),
    ] {
        let arguments = [&["get"], arguments].concat();
        cluster.run(&arguments).await.is_error(what);
    }
}

#[tokio::test]
async fn a_watch_of_get_prints_what_kubectl_prints() {
    let cluster = sized().await;
    let things = Resource::namespaced("example.com", "v1", "things");
    let put = |name: &str, count: u64| {
        let metadata = json!({"name": name, "namespace": "default"});
        let (version, kind) = ("example.com/v1", "Thing");
        let spec = json!({"count": count});
        let object =
            json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec});
        cluster.server.put(&things, object);
    };
    let template = "jsonpath={.metadata.name}{.spec.count}{\"\\n\"}";
    let events = "jsonpath={.type} {.object.metadata.name}{\"\\n\"}";
    let columns = "custom-columns=N:.metadata.name,C:.spec.count";
    let forms = [
        (&["-w"][..], &["NAME AGE", "a", "b", "c", "d"][..]),
        (
            &["-w", "--output-watch-events"],
            &["EVENT NAME AGE", "ADDED a", "ADDED b", "ADDED c", "ADDED d"],
        ),
        (&["-w", "-o", template], &["a3", "b12", "c5", "d7"]),
        (&["--watch-only", "-o", template], &["d7"]),
        (
            &["-w", "-o", events, "--output-watch-events"],
            &["ADDED a", "ADDED b", "ADDED c", "ADDED d"],
        ),
        (
            &["-w", "-o", columns],
            &["N C", "a 3", "b 12", "c 5", "d 7"],
        ),
        (
            &["-w", "-o", "name"],
            &[
                "thing.example.com/a",
                "thing.example.com/b",
                "thing.example.com/c",
                "thing.example.com/d",
            ],
        ),
        (&["--watch-only"], &["NAME AGE", "d"]),
        (&["a", "-w", "-o", "json"], &["{"]),
    ];
    let programs = [Some(crate::tool::KUBEWIRE.into()), kubectl::kubectl()];
    for program in programs.into_iter().flatten() {
        for (form, expected) in forms {
            println!("{program:?} {form:?}");
            let arguments = [&["get", "things"], form].concat();
            let child = cluster.program(&program, &arguments).spawn().unwrap();
            let mut tool = crate::tool::Running::new(child);
            let mut seen = Vec::new();
            let mut late = form.contains(&"--watch-only");
            while seen.len() < expected.len() {
                // What comes late is put until it is seen: nobody says that a watch has begun.
                if expected[seen.len()].contains('d') && !late {
                    late = true;
                }
                let line = if late {
                    let mut line = std::pin::pin!(tool.line());
                    loop {
                        tokio::select! {
                            line = &mut line => break line,
                            () = tokio::time::sleep(std::time::Duration::from_millis(200)) => put("d", 7),
                        }
                    }
                } else {
                    tool.line().await
                };
                let age = |cell: &&str| !cell.ends_with('s') || cell.len() > 4;
                let line = squeeze(&line);
                let line: Vec<_> = line.split(' ').filter(age).collect();
                seen.push(line.join(" ").replace("<unknown>", "").trim().to_owned());
            }
            assert_eq!(seen, expected);
            drop(tool);
            cluster.server.delete(&things, "default", "d");
        }
    }
}

/// A table without the spaces, and without the ages, which change as time goes by.
fn rows(table: &str) -> Vec<String> {
    let is_age = |cell: &str| cell.ends_with('s') && cell.starts_with(|c: char| c.is_ascii_digit());
    let cells = |row: &str| {
        let row = squeeze(row);
        let cells = row.split(' ').filter(|cell| !is_age(cell));
        cells.collect::<Vec<_>>().join(" ")
    };
    table.lines().map(cells).collect()
}

#[tokio::test]
async fn tables_are_chosen_as_kubectl_chooses() {
    let cluster = labelled().await;
    let kubectl = kubectl::kubectl();
    for (arguments, expected) in [
        (
            &["pods", "-L", "app,example.com/tier", "--no-headers"][..],
            Some(&["db-0 1/1 Running 0 db", "web-0 1/1 Running 0 web front"][..]),
        ),
        (
            &["pods", "web-0", "--show-labels", "-L=app"],
            Some(&[
                "NAME READY STATUS RESTARTS AGE APP LABELS",
                "web-0 1/1 Running 0 web app=web,example.com/tier=front",
            ]),
        ),
        (&["pods", "web-0", "db-0"], None),
        (&["pod/web-0", "things.example.com/odd"], None),
        (&["pods,things", "--show-labels"], None),
        (&["pods", "--show-kind"], None),
        (&["all"], None),
        (&["all", "-A", "--no-headers"], None),
        (&["pods", "web-0", "none", "--ignore-not-found"], None),
        (&["pods", "none", "--ignore-not-found"], Some(&[])),
        (&["pods", "-l", "app=none"], Some(&[])),
        (&["pods", "-l", "app=none", "--ignore-not-found"], None),
        (
            &["pods", "web-0", "db-0", "-o", "name"],
            Some(&["pod/web-0", "pod/db-0"]),
        ),
    ] {
        println!("{arguments:?}");
        let arguments = [&["get"], arguments].concat();
        let (code, stdout, stderr) = cluster.run(&arguments).await.into_text();
        assert_eq!(code, Some(0), "{stderr}");
        if let Some(expected) = expected {
            assert_eq!(rows(&stdout), expected);
        }
        if let Some(kubectl) = &kubectl {
            let theirs = cluster.run_program(kubectl, &arguments).await.into_text();
            assert_eq!(
                (code, rows(&stdout), stderr),
                (theirs.0, rows(&theirs.1), theirs.2)
            );
        }
    }
    // What is there is printed, and what is not is an error.
    let ran = cluster
        .run(&["get", "pods", "none", "web-0", "-o", "name"])
        .await;
    assert_eq!((ran.code, &ran.stdout[..]), (Some(1), &b"pod/web-0\n"[..]));
    assert!(
        ran.stderr.contains("pods \"none\" not found"),
        "{}",
        ran.stderr
    );
    for (arguments, what) in [
        (&["get", "pod/web-0", "db-0"][..], "exclude each other"),
        (&["get", "pods", "web-0", "-A"], "exclude each other"),
        (&["get", "pods,nothings"], "nothings"),
    ] {
        cluster.run(arguments).await.is_error(what);
    }
}

#[tokio::test]
async fn objects_are_printed_as_kubectl_prints_them() {
    let cluster = labelled().await;
    let kubectl = kubectl::kubectl();
    for arguments in [
        &["things", "odd"][..],
        &["things"],
        &["pod/web-0", "things/odd"],
        &["pods", "-l", "app=none"],
        &["things", "odd", "--show-managed-fields"],
        &["things", "odd", "none", "--ignore-not-found"],
    ] {
        println!("{arguments:?}");
        let json = [&["get", "-o", "json"], arguments].concat();
        let yaml = [&["get", "-o", "yaml"], arguments].concat();
        let (code, text, stderr) = cluster.run(&json).await.into_text();
        assert_eq!((code, &*stderr), (Some(0), ""));
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            text.contains("managedFields"),
            arguments.len() == 3 && arguments[2].contains("managed")
        );
        let (code, same, stderr) = cluster.run(&yaml).await.into_text();
        assert_eq!((code, &*stderr), (Some(0), ""));
        assert_eq!(
            serde_saphyr::from_str::<Value>(&same).unwrap(),
            value,
            "{same}"
        );
        if let Some(kubectl) = &kubectl {
            let theirs = cluster.run_program(kubectl, &json).await.into_text();
            assert_eq!(text, theirs.1, "{}", theirs.2);
            let theirs = cluster.run_program(kubectl, &yaml).await.into_text().1;
            assert_eq!(same, theirs);
        }
    }
}

#[tokio::test]
async fn wait_says_once_why_it_asks_again() {
    let cluster = Cluster::start().await;
    // It knows no watches until it is asked for a list.
    let url = serving(|target| {
        let body = match target.contains("watch=") {
            true => r#"{"kind":"Status","status":"Failure","message":"no","code":500}"#,
            false => r#"{"kind":"ThingList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[]}"#,
        };
        (body.len(), body.to_owned())
    })
    .await;
    let ran = cluster
        .run(&[
            "-s",
            &url,
            "wait",
            "--for=delete",
            "thing/x",
            "--timeout=5m",
        ])
        .await;
    let (code, _, stderr) = ran.into_text();
    assert_eq!(stderr.matches("; trying again").count(), 1, "{stderr}");
    assert_eq!(code, Some(0), "{stderr}");
}
