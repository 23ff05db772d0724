use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::{
    limits,
    net::tests::{Leaf, authority, local, params, serve},
};

#[test]
fn a_401_names_the_certificate_and_whether_it_is_out_of_date() {
    let ca = authority();
    let mut past = params(&[]);
    past.not_after = rcgen::date_time_ymd(2002, 1, 1);
    let (old, new) = (ca.sign(past), ca.sign(params(&[])));
    let hint = |leaf: &Leaf, status: StatusCode| {
        let config = Config::new("https://h")
            .unwrap()
            .with_ca_pem(ca.pem())
            .with_client_certificate_pem(
                leaf.certificate.pem(),
                leaf.key.serialize_pem().into_bytes(),
            );
        let mut response = Response::new(());
        *response.status_mut() = status;
        Connector::new(&config).unwrap().annotate(&mut response);
        response.extensions().get::<Hint>().map(ToString::to_string)
    };
    assert_eq!(
        hint(&old, StatusCode::UNAUTHORIZED).unwrap(),
        "the client certificate (the client certificate's PEM, valid until 2002-01-01T00:00:00Z): \
         it expired at 2002-01-01T00:00:00Z"
    );
    assert_eq!(
        hint(&new, StatusCode::UNAUTHORIZED).unwrap(),
        "it does not take the client certificate's PEM, valid until 4096-01-01T00:00:00Z: log in \
         again, or name another user"
    );
    assert_eq!(hint(&old, StatusCode::OK), None);
}

#[cfg(unix)]
#[tokio::test]
async fn a_plugin_gives_the_certificate_and_a_refusal_another() {
    use std::os::unix::fs::PermissionsExt;
    let (ca, clients) = (authority(), authority());
    let address = serve(&ca.sign(local()), Some(&clients)).await;
    let dir = tempfile::tempdir().unwrap();
    for (name, leaf) in [
        ("1", clients.sign(params(&[]))),
        ("2", clients.sign(params(&[]))),
    ] {
        let text = format!(
            r#"{{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{{"clientCertificateData":{:?},"clientKeyData":{:?}}}}}"#,
            leaf.certificate.pem(),
            leaf.key.serialize_pem()
        );
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let script = "#!/bin/sh\ncd \"$(dirname \"$0\")\"\necho x >> runs\ncat $(wc -l < runs)\n";
    let path = dir.path().join("plugin");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let text = format!(
        "{{current-context: c, contexts: [{{name: c, context: {{cluster: k, user: u}}}}], \
         clusters: [{{name: k, cluster: {{server: 'https://{address}'}}}}], users: [{{name: u, \
         user: {{exec: {{command: ./plugin, apiVersion: client.authentication.k8s.io/v1, \
         interactiveMode: Never}}}}}}]}}"
    );
    std::fs::write(dir.path().join("config"), text).unwrap();
    let options = crate::config::KubeconfigOptions::new().file(dir.path().join("config"));
    let ca_file = dir.path().join("ca.crt");
    std::fs::write(&ca_file, ca.pem()).unwrap();
    let config = Config::from_kubeconfig(&options)
        .unwrap()
        .with_ca_file(ca_file);
    let connector = Connector::new(&config).unwrap();
    let runs = || {
        std::fs::read_to_string(dir.path().join("runs"))
            .unwrap()
            .lines()
            .count()
    };
    let mut running = connector.connect().await.unwrap();
    let mut second = connector.connect().await.unwrap();
    for connection in [&mut running, &mut second] {
        assert_eq!(
            connection.read_u8().await.unwrap(),
            b'1',
            "one certificate is presented"
        );
    }
    assert_eq!(runs(), 1);
    assert!(
        !connector.certificates_changed(),
        "what the plugin gave is no change of the files"
    );
    tokio::time::pause();
    tokio::time::advance(limits::RENEW_AGAIN).await;
    tokio::time::resume();
    assert!(connector.refused(&HeaderMap::new()));
    connector.connect().await.unwrap();
    assert_eq!(runs(), 2);
    running.write_all(b"!").await.unwrap();
    let mut rest = [0; 11];
    running.read_exact(&mut rest).await.unwrap();
    assert_eq!(&rest, b" http/1.1;!", "the running stream goes on");
}
