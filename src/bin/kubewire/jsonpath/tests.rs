use serde_json::json;

use super::*;

fn pods() -> Value {
    json!({
        "kind": "List",
        "items": [
            {"metadata": {"name": "a", "labels": {"app": "web", "a.b/c": "x"}},
             "spec": {"n": 1, "containers": [{"name": "m", "image": "i:1"}, {"name": "s"}]}},
            {"metadata": {"name": "b"}, "spec": {"n": 12, "f": 1.5, "on": true, "none": null}},
            {"metadata": {"name": "c"}, "spec": {"n": 5, "odd": "<&>"}},
        ],
    })
}

#[test]
fn templates_give_what_kubectl_gives() {
    for (template, expected) in [
        ("plain", "plain"),
        ("{.kind}", "List"),
        ("{.items[0].metadata.name}", "a"),
        ("{.items[*].metadata.name}", "a b c"),
        ("{ .items[:].metadata.name }", "a b c"),
        ("{.items[-1].metadata.name}", "c"),
        ("{.items[0:2].metadata.name}", "a b"),
        ("{.items[::2].metadata.name}", "a c"),
        ("{.items[-2:].metadata.name}", "b c"),
        ("{.items[0,2].metadata.name}", "a c"),
        ("{.items[1:1].metadata.name}", ""),
        ("{.items[0]['metadata.name', 'spec.n']}", "a 1"),
        ("{.items[0]['metadata', 'kind'].name}", "a"),
        ("{.items[0].metadata.labels.a\\.b/c}", "x"),
        ("{.items[0].metadata.labels['a\\.b/c']}", "x"),
        (
            "{range .items[*]}{.metadata.name}={.spec.n}{\"\\n\"}{end}.",
            "a=1\nb=12\nc=5\n.",
        ),
        (
            "{range .items[*]}{.metadata.name}:{range .spec.containers[*]}{.name},{end};{end}",
            "a:m,s,;b:;c:;",
        ),
        ("{range .none[*]}{.x}{end}after", "after"),
        ("{.items[?(@.spec.n>4)].metadata.name}", "b c"),
        ("{.items[?(@.spec.n<=5)].metadata.name}", "a c"),
        ("{.items[?(@.metadata.name==\"b\")].spec.n}", "12"),
        ("{.items[?(@.metadata.name!='b')].spec.n}", "1 5"),
        ("{.items[?(@.metadata.labels)].metadata.name}", "a"),
        (
            "{.items[?(@.metadata.name=~\"[bc]\")].metadata.name}",
            "b c",
        ),
        ("{.items[?(@.spec.on==true)].metadata.name}", "b"),
        ("{.items[0].spec.containers[?(@.name=='m')].image}", "i:1"),
        ("{..image}", "i:1"),
        (
            "{.items[0].metadata.labels}",
            r#"{"a.b/c":"x","app":"web"}"#,
        ),
        (
            "{.items[2].spec}",
            "{\"n\":5,\"odd\":\"\\u003c\\u0026\\u003e\"}",
        ),
        ("{.items[2].spec.odd}", "<&>"),
        ("{.items[1].spec.f}{' '}{.items[1].spec.on}", "1.5 true"),
        ("{.items[1].spec.none}", "<nil>"),
        ("{.nothing.at.all}", ""),
        ("{'it''s'}{\"\\u00fc\\x41\\t\"}", "süA\t"),
        ("{5}{-1.5}", "5-1.5"),
    ] {
        let path = JsonPath::parse(template).unwrap();
        assert_eq!(path.text(&pods()).as_deref(), Ok(expected), "{template}");
    }
}

#[test]
fn what_is_wrong_is_said_and_nothing_panics() {
    for template in [
        "{",
        "{.a",
        "{.a[}",
        "{.a[0}",
        "{.a[x]}",
        "{.a[1:2:3:4]}",
        "{\"a}",
        "{'\\q'}",
        "{'\\ud800'}",
        "{....}",
        "{word}",
        "{.a[?(@.b}",
        "{.a[?(@.b)}",
        "{.a[?(@.b=!1)]}",
        "{!}",
        "{.a[?(@.b=~\"(\")]}",
        "{1.2.3}",
        "{.a\n}",
        "{.a[+1]}",
        "{.a[?(@.b>)]",
    ] {
        assert!(JsonPath::parse(template).is_err(), "{template}");
    }
    for template in [
        "{end}",
        "{.items[9]}",
        "{.items[2:1]}",
        "{.items[::0]}",
        "{.items[-9]}",
        "{.kind[0]}",
        "{.kind[?(@.a)]}",
        "{.items[?(@.spec.n>\"a\")]}",
        "{.items[?(@.spec==1)]}",
        "{.items[-9223372036854775808]}",
        "{.items[9223372036854775807]}",
        "{.items[0:-9223372036854775808]}",
    ] {
        let path = JsonPath::parse(template).unwrap();
        assert!(path.text(&pods()).is_err(), "{template}");
    }
    let mut strict = JsonPath::parse("{.items[0].none}").unwrap();
    strict.allow_missing = false;
    assert_eq!(strict.text(&pods()), Err("none is not found".to_owned()));
    let nested = format!("{{{}{}}}", ".a[?(@".repeat(1000), ")]".repeat(1000));
    assert!(JsonPath::parse(&nested).is_err());
    assert!(JsonPath::parse(&"x".repeat(1 << 17)).is_err());
    // As deep as a text may be.
    let ranges = "{range .items[*]}".repeat(2000);
    let _ = JsonPath::parse(&ranges).unwrap().text(&pods());
}

#[test]
fn paths_need_no_braces_where_they_are_alone() {
    for path in [
        "{.metadata.name}",
        ".metadata.name",
        "metadata.name",
        "{metadata.name}",
    ] {
        let path = JsonPath::relaxed(path).unwrap();
        assert_eq!(path.text(&pods()["items"][0]).as_deref(), Ok("a"));
    }
    for path in ["", "{}", "{.a}{.b}", "{.a", "."] {
        assert!(JsonPath::relaxed(path).is_err(), "{path}");
    }
}

#[test]
fn values_are_written_as_go_writes_them() {
    let value = json!({"b": [1, "x", null], "a": {"c": true, "d": 1.5}});
    assert_eq!(sprint(&value), "map[a:map[c:true d:1.5] b:[1 x <nil>]]");
    for (value, fmt, json) in [
        (0.0, "0", "0"),
        (1e20, "100000000000000000000", "100000000000000000000"),
        (1e21, "1e+21", "1e+21"),
        (0.00001, "1e-05", "0.00001"),
        (2.5e-7, "2.5e-07", "2.5e-7"),
        (-1e100, "-1e+100", "-1e+100"),
    ] {
        assert_eq!(
            (&*float(value, 1e-4..1e21, 2), &*float(value, 1e-6..1e21, 1)),
            (fmt, json)
        );
    }
}
