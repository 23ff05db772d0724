//! kubectl, which some tests run beside the tool.

use std::path::PathBuf;

/// kubectl, or why there is none.
pub(crate) fn kubectl() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|dir| dir.join("kubectl"))
        .find(|file| file.is_file());
    if found.is_none() {
        assert!(
            std::env::var_os("KUBEWIRE_REQUIRE_REAL").is_none_or(|value| value != "1"),
            "kubectl is not in PATH"
        );
        println!("skipped: kubectl is not in PATH");
    }
    found
}
