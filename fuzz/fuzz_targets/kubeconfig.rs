//! Any text is a configuration or an error of one line or more, without a secret of it and without
//! control characters but line ends. Nothing is opened or run.
#![no_main]

use kubewire::config::{Config, KubeconfigOptions};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let found = Config::from_kubeconfig_str(&text, &KubeconfigOptions::new());
    let said = match &found {
        Ok(config) => {
            let url = config.server_url();
            assert!(url.starts_with("http://") || url.starts_with("https://"));
            assert!(!config.namespace().is_empty());
            format!("{config:?}")
        }
        Err(error) => {
            let said = error.to_string();
            assert!(!said.contains(|c: char| c.is_control() && c != '\n'), "{said:?}");
            said
        }
    };
    for (at, _) in text.match_indices("token: secret-") {
        let secret: String =
            text[at + 7..].chars().take_while(char::is_ascii_alphanumeric).collect();
        assert!(secret.len() < 12 || !said.contains(&secret));
    }
});
