//! Against a real HTTP server in this process.

use serde_json::json;

use super::*;
use crate::{
    error::PeerError,
    transport::http::tests::{Got, answer, client, serve},
    wire::status::Status,
};

fn maps(client: &Client) -> Request {
    client.request(Resource::namespaced("", "v1", "configmaps"))
}

fn conflict() -> String {
    String::from_utf8(Status::failure(409, "Conflict", "it has been modified").to_json()).unwrap()
}

fn line((head, body): &Got) -> String {
    let body = String::from_utf8_lossy(body);
    let form = head.headers.get("content-type");
    let form = form.map_or("", |form| form.to_str().unwrap());
    format!("{} {} {form} {body}", head.method, head.uri)
        .trim_end()
        .to_owned()
}

#[tokio::test]
async fn each_verb_sends_what_the_api_expects() {
    let (address, got) = serve(|_, _| answer(200, r#"{"a":1}"#)).await;
    let client = client(address);
    let (maps, object) = (maps(&client).namespace("n"), json!({"a": 1}));
    let _: Value = maps.get("x").await.unwrap();
    maps.create(&object).await.unwrap();
    maps.replace("x", &object).await.unwrap();
    let status = maps.clone().subresource("status");
    let _: Value = status.patch("x", Patch::Merge(&object)).await.unwrap();
    let _: Value = maps.patch("x", Patch::Strategic(&object)).await.unwrap();
    let _: Value = maps.patch("x", Patch::Json(&json!([]))).await.unwrap();
    let apply = Patch::Apply {
        object: &object,
        manager: "me too",
        force: true,
    };
    let _: Value = maps.patch("x", apply).await.unwrap();
    let options = json!({"propagationPolicy": "Foreground"});
    let _: Deleted<Value> = maps.delete("x", Some(&options)).await.unwrap();
    let evict = maps.clone().subresource("eviction").query("dryRun", "All");
    let _: Value = evict.create_for("x", &object).await.unwrap();
    let got: Vec<_> = got.lock().unwrap().iter().map(line).collect();
    let base = "/base/api/v1/namespaces/n/configmaps";
    assert_eq!(
        got,
        [
            format!("GET {base}/x"),
            format!("POST {base} application/json {{\"a\":1}}"),
            format!("PUT {base}/x application/json {{\"a\":1}}"),
            format!("PATCH {base}/x/status application/merge-patch+json {{\"a\":1}}"),
            format!("PATCH {base}/x application/strategic-merge-patch+json {{\"a\":1}}"),
            format!("PATCH {base}/x application/json-patch+json []"),
            format!(
                "PATCH {base}/x?fieldManager=me%20too&force=true application/apply-patch+yaml \
                 {{\"a\":1}}"
            ),
            format!("DELETE {base}/x application/json {{\"propagationPolicy\":\"Foreground\"}}"),
            format!("POST {base}/x/eviction?dryRun=All application/json {{\"a\":1}}"),
        ]
    );
}

#[tokio::test]
async fn without_a_namespace_lists_are_of_all_and_the_rest_is_in_the_clients() {
    let (address, got) = serve(|_, _| answer(200, r#"{"items":null}"#)).await;
    let client = client(address);
    let _: Value = maps(&client).get("x").await.unwrap();
    let _: List<Value> = maps(&client)
        .labels("a=b")
        .fields("c!=d")
        .list()
        .await
        .unwrap();
    let nodes = Resource::cluster("", "v1", "nodes");
    let _: Value = client.request(nodes).namespace("n").get("x").await.unwrap();
    let got: Vec<_> = got.lock().unwrap().iter().map(line).collect();
    assert_eq!(
        got,
        [
            "GET /base/api/v1/namespaces/default/configmaps/x",
            "GET /base/api/v1/configmaps?labelSelector=a%3Db&fieldSelector=c%21%3Dd&limit=500",
            "GET /base/api/v1/nodes/x",
        ]
    );
}

fn page(items: &[u32], next: &str) -> String {
    let items: Vec<_> = items.iter().map(|n| json!({"n": n})).collect();
    json!({"metadata": {"resourceVersion": "7", "continue": next, "remainingItemCount": 9}, "items": items})
        .to_string()
}

fn numbers(list: &List<Value>) -> Vec<u64> {
    list.items.iter().flat_map(|it| it["n"].as_u64()).collect()
}

#[tokio::test]
async fn a_list_is_fetched_page_by_page() {
    let (address, got) = serve(|at, _| match at {
        0 => answer(200, page(&[1, 2], "t/1")),
        1 => answer(200, page(&[3], "")),
        _ => answer(200, r#"{"items":null}"#),
    })
    .await;
    let client = client(address);
    let list: List<Value> = maps(&client).list().await.unwrap();
    assert_eq!(numbers(&list), [1, 2, 3]);
    assert_eq!(list.metadata.resource_version, "7");
    let mut pages = maps(&client).pages::<Value>(0);
    assert!(pages.next().await.unwrap().unwrap().items.is_empty());
    assert!(pages.next().await.unwrap().is_none());
    let got: Vec<_> = got.lock().unwrap().iter().map(line).collect();
    assert_eq!(
        got[1],
        "GET /base/api/v1/configmaps?limit=500&continue=t%2F1"
    );
    assert_eq!(got[2], "GET /base/api/v1/configmaps");
}

#[tokio::test]
async fn a_list_whose_page_names_itself_as_the_next_is_an_error() {
    let (address, got) = serve(|_, _| answer(200, page(&[1], "t"))).await;
    let error = maps(&client(address)).list::<Value>().await.unwrap_err();
    assert!(error.to_string().contains("the list has no end"), "{error}");
    assert_eq!(got.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_list_of_ever_more_pages_is_an_error() {
    let (address, _) = serve(|at, _| answer(200, page(&[], &at.to_string()))).await;
    let mut pages = maps(&client(address)).pages::<Value>(1);
    pages.pages = limits::LIST_PAGES - 3;
    let error = loop {
        match pages.next().await {
            Ok(page) => assert!(page.is_some()),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("the list has no end"), "{error}");
    assert_eq!(pages.pages, limits::LIST_PAGES);
}

#[tokio::test]
async fn a_list_that_expires_between_pages_is_fetched_whole() {
    let gone = Status::failure(410, "Expired", "too old").to_json();
    let gone = String::from_utf8(gone).unwrap();
    let (address, got) = serve(move |at, _| match at {
        0 => answer(200, page(&[1], "t")),
        1 => answer(410, gone.clone()),
        _ => answer(200, page(&[1, 2], "")),
    })
    .await;
    let list: List<Value> = maps(&client(address)).list().await.unwrap();
    assert_eq!(numbers(&list), [1, 2]);
    assert_eq!(got.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn an_update_reads_again_after_a_conflict() {
    let (address, got) = serve(|at, (head, _)| match (head.method == Method::GET, at) {
        (true, _) => answer(200, json!({"n": at}).to_string()),
        (false, 1) => answer(409, conflict()),
        (false, _) => answer(200, r#"{"n":100}"#),
    })
    .await;
    let maps = maps(&client(address));
    let mut seen = Vec::new();
    let done: Value = maps
        .update("x", |object: &mut Value| {
            seen.push(object["n"].as_u64().unwrap());
            object["mine"] = json!(true);
        })
        .await
        .unwrap();
    assert_eq!((seen, done["n"].as_u64()), (vec![0, 2], Some(100)));
    let put = line(&got.lock().unwrap()[3]);
    assert!(
        put.ends_with(r#"application/json {"mine":true,"n":2}"#),
        "{put}"
    );
    let before = got.lock().unwrap().len();
    let _: Value = maps.update("x", |_: &mut Value| {}).await.unwrap();
    assert_eq!(
        got.lock().unwrap().len(),
        before + 1,
        "nothing changed, nothing is sent"
    );
}

#[tokio::test(start_paused = true)]
async fn an_update_gives_up_on_a_conflict_without_end() {
    let (address, got) = serve(|_, (head, _)| match head.method == Method::GET {
        true => answer(200, "{}"),
        false => answer(409, conflict()),
    })
    .await;
    let mut n = 0;
    let result: Result<Value> = maps(&client(address))
        .timeout(Duration::from_secs(100_000))
        .update("x", |object: &mut Value| {
            n += 1;
            object["n"] = json!(n);
        })
        .await;
    assert!(matches!(result, Err(Error::Conflict(_))), "{result:?}");
    assert_eq!(
        got.lock().unwrap().len(),
        2 * (limits::UPDATES as usize + 1)
    );
}

#[tokio::test]
async fn refusals_are_typed_by_their_status() {
    let status = |code, reason: &str| {
        let status = Status::failure(code, reason, "no");
        answer(code, String::from_utf8(status.to_json()).unwrap())
    };
    let (address, _) = serve(move |at, _| match at {
        0 => status(404, "NotFound"),
        1 => status(409, "AlreadyExists"),
        2 => answer(409, conflict()),
        3 => answer(502, "<html>bad gateway"),
        4 => answer(200, "<html>login"),
        _ => answer(200, r#"{"kind":"Status","status":"Success"}"#),
    })
    .await;
    let maps = maps(&client(address)).namespace("n");
    let error = maps.get::<Value>("x").await.unwrap_err();
    assert_eq!(error.to_string(), "get configmaps n/x: no");
    assert_eq!(error.status().unwrap().reason, "NotFound");
    let error = maps.create(&json!({})).await.unwrap_err();
    assert!(matches!(error, Error::Api(_)), "{error:?}");
    let error = maps.replace("x", &json!({})).await.unwrap_err();
    assert!(matches!(error, Error::Conflict(_)), "{error:?}");
    assert_eq!(error.status().unwrap().code, 409);
    let error = maps.get::<Value>("x").await.unwrap_err();
    assert_eq!(error.status().unwrap().code, 502);
    let error = maps.get::<Value>("x").await.unwrap_err();
    assert!(
        matches!(error, Error::Peer(PeerError::Answer { .. })),
        "{error:?}"
    );
    let gone = maps.delete::<Value>("x", None).await.unwrap();
    assert!(matches!(gone, Deleted::Gone(status) if status.is_success()));
}

#[tokio::test]
async fn raw_bytes_come_as_they_are() {
    let (address, got) = serve(|_, _| answer(200, "a\0b".repeat(100_000))).await;
    let client = client(address);
    let body = maps(&client)
        .get_raw("x", "application/yaml")
        .await
        .unwrap();
    assert_eq!(body.bytes(300_000).await.unwrap().len(), 300_000);
    let body = maps(&client).list_raw("text/plain").await.unwrap();
    let error = body.bytes(299_999).await.unwrap_err();
    assert!(
        matches!(error, Error::Caller(CallerError::TooMuchOutput { .. })),
        "{error}"
    );
    let request = http::Request::get("/healthz?verbose")
        .body(Bytes::new())
        .unwrap();
    let response = client.send(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let got = got.lock().unwrap();
    assert_eq!(got[0].0.headers["accept"], "application/yaml");
    assert_eq!(got[2].0.uri, "/base/healthz?verbose");
}

#[tokio::test]
async fn a_proxied_request_reaches_the_pod_under_its_own_path() {
    let (address, got) = serve(|_, _| answer(503, "nobody listens")).await;
    let client = client(address);
    let get = |path: &str| http::Request::get(path).body(Bytes::new()).unwrap();
    let response = client
        .pod("n", "p")
        .proxy(8080)
        .send(get("/a?b=c"))
        .await
        .unwrap();
    assert_eq!(response.status(), 503);
    let service = client.service_proxy("n", "s", "metrics").https();
    service.send(get("/")).await.unwrap();
    client
        .service_proxy("n", "s", "")
        .send(get("/x"))
        .await
        .unwrap();
    for (port, path) in [("80:80", "/"), ("80", "/a/../../b"), ("80", "/..?x")] {
        let error = client
            .pod("n", "p")
            .proxy(port)
            .send(get(path))
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Caller(_)), "{error}");
    }
    let got: Vec<_> = got.lock().unwrap().iter().map(line).collect();
    assert_eq!(
        got,
        [
            "GET /base/api/v1/namespaces/n/pods/p%3A8080/proxy/a?b=c",
            "GET /base/api/v1/namespaces/n/services/https%3As%3Ametrics/proxy/",
            "GET /base/api/v1/namespaces/n/services/s/proxy/x",
        ]
    );
}

#[tokio::test]
async fn an_answer_that_is_no_list_is_none_without_objects() {
    let (address, _) = serve(|_, _| answer(200, r#"{"kind":"ConfigMapList"}"#)).await;
    let list = maps(&client(address)).list::<Value>().await;
    assert!(matches!(list, Err(Error::Peer(_))), "{list:?}");
}

#[tokio::test]
async fn a_status_of_failure_is_one_whatever_the_code_before_it() {
    let status = r#"{"kind":"Status","status":"Failure","message":"full","code":500}"#;
    let (address, _) = serve(move |_, _| answer(200, status)).await;
    let client = client(address);
    let list = maps(&client).list::<Value>().await.map(drop);
    let get = maps(&client).get::<Value>("x").await.map(drop);
    for result in [list, get] {
        let error = result.unwrap_err();
        assert_eq!(
            error.status().map(|status| status.code),
            Some(500),
            "{error}"
        );
    }
}

/// A server whose one answer has this beginning, and then this again and again.
async fn endless(begin: &str, again: String) -> Client {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n";
    let begin = format!("{head}{begin}");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let _ = tcp.read(&mut [0; 4096]).await;
            let mut sent = tcp.write_all(begin.as_bytes()).await;
            while sent.is_ok() {
                sent = tcp.write_all(again.as_bytes()).await;
            }
        }
    });
    client(address)
}

#[tokio::test]
async fn an_answer_without_end_is_the_servers_fault() {
    let list = r#"{"kind":"ConfigMapList","apiVersion":"v1","items":["#;
    let one = format!("{list}{{\"data\":\"");
    let item = format!(r#"{{"data":"{}"}},"#, "x".repeat(1 << 20));
    let one_object = "an object of it has more than 33554432 bytes";
    let all = "a page of it has more than 268435456 bytes";
    for (begin, again, problem) in [
        (&*one, "x".repeat(1 << 20), one_object),
        (list, item, all),
        // Not in an object of the list, but before its objects.
        (r#"{"a":""#, "x".repeat(1 << 20), one_object),
    ] {
        let client = endless(begin, again).await;
        let error = maps(&client).list::<serde::de::IgnoredAny>().await;
        let error = error.unwrap_err();
        let Error::Peer(PeerError::Answer {
            operation,
            problem: found,
        }) = &error
        else {
            panic!("{error:?}");
        };
        assert_eq!((operation.as_str(), &**found), ("list configmaps", problem));
    }
    let client = endless(r#"{"a":""#, "x".repeat(1 << 20)).await;
    let error = maps(&client).get::<Value>("x").await.unwrap_err();
    assert!(
        matches!(&error, Error::Peer(PeerError::Answer { problem, .. })
            if problem == "it has more than 268435456 bytes"),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_long_list_is_read_as_a_short_one() {
    let items: Vec<_> = (0..1000)
        .map(|n| json!({"metadata": {"name": format!("m-{n}")}, "data": "x".repeat(1000)}))
        .collect();
    let head = json!({"resourceVersion": "7", "continue": "", "remainingItemCount": 9});
    let long = json!({"kind": "L", "items": items, "metadata": head}).to_string();
    let status = Status::failure(500, "", "x".repeat(100_000)).to_json();
    let answers = [
        long.clone(),
        // The kind of the objects may stand behind them.
        long.replacen(r#""kind":"L","#, "", 1),
        String::from_utf8(status).unwrap(),
        long[..long.len() - 10].to_owned(),
    ];
    let bodies = answers.clone();
    let (address, _) = serve(move |at, _| answer(200, &*bodies[at])).await;
    let client = client(address);
    for _ in 0..2 {
        let list = maps(&client).list::<Value>().await.unwrap();
        assert_eq!(list.items, items);
        assert_eq!(list.metadata.resource_version, "7");
        assert_eq!(list.metadata.remaining_item_count, Some(9));
    }
    for _ in 2..answers.len() {
        let error = maps(&client).list::<Value>().await.unwrap_err();
        assert!(
            matches!(error, Error::Peer(PeerError::Answer { .. })),
            "{error:?}"
        );
    }
}
