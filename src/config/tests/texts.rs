//! What is no text where one must be, and what no header can carry.

use super::*;

#[test]
fn what_is_no_text_or_fits_no_header_is_named_with_user_and_file() {
    let https = "server: 'https://h'";
    let cases = [
        (https, "token: \"t\\n\"", "token of user \"u\" in /"),
        (https, "as: \"a\\nb\"", "as of user \"u\" in /"),
        (
            https,
            "as: a, as-uid: \"\\x01\"",
            "as-uid of user \"u\" in /",
        ),
        (
            https,
            "as: a, as-groups: [g, \"\\r\"]",
            "as-groups of user \"u\" in /",
        ),
        (
            https,
            "as: a, as-user-extra: {k: [\"\\n\"]}",
            "as-user-extra of user \"u\" in /",
        ),
        (
            https,
            "token: 12345",
            "user \"u\" cannot be read: the value of token is a number",
        ),
        (https, "as: yes", "the value of as is a number or a boolean"),
        (
            https,
            "as: a, as-groups: [5]",
            "the value of as-groups is a number",
        ),
        (
            https,
            "exec: {command: c, args: [1.5]}",
            "the value of exec.args is a number",
        ),
        (
            https,
            "exec: text",
            "the value of exec is not what it should be",
        ),
        (
            "server: 5",
            "",
            "the value of server is a number or a boolean",
        ),
        (
            "server: 'https://h', insecure-skip-tls-verify: 'yes'",
            "",
            "is not what it should be",
        ),
    ];
    for (cluster, user, expected) in cases {
        let text = problem(kubeconfig(&one(cluster, user)));
        assert!(text.contains(expected), "{text}");
    }
    let text = one("server: 'https://h'", "").replace("name: u,", "name: 7,");
    let seven = text.replace("user: u", "user: '7'");
    assert!(problem(kubeconfig(&seven)).contains("its name is a number"));
    let seven = text.replace("current-context: c", "current-context: 7");
    assert!(problem(kubeconfig(&seven)).contains("current-context is a number"));
    let yes = one("server: 'https://h', insecure-skip-tls-verify: yes", "");
    assert!(
        kubeconfig(&yes).unwrap().tls.insecure,
        "YAML 1.1, as kubectl"
    );
}
