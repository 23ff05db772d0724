//! A server whose namespaces hold nothing but what a test puts there.

use kubewire::{Resource, testing::ApiServer};

/// Takes away the ConfigMap that every namespace has.
pub(crate) fn empty(server: &ApiServer) {
    let maps = Resource::namespaced("", "v1", "configmaps");
    for map in server.objects(&maps) {
        let text = |field: &str| map["metadata"][field].as_str().unwrap();
        assert!(server.delete(&maps, text("namespace"), text("name")));
    }
}
