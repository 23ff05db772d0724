//! What the documentation's examples run on: in flow a pod and an example, out comes that it ran.

use crate::{
    Client,
    testing::{ApiServer, PodBuilder},
};

/// Runs an example against a server with the pod `default/web-0`.
///
/// # Panics
///
/// If the example fails.
#[doc(hidden)]
pub fn example(
    pod: impl FnOnce(PodBuilder) -> PodBuilder,
    run: impl AsyncFnOnce(Client) -> Result<(), Box<dyn std::error::Error>>,
) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().expect("a runtime");
    let ran = runtime.block_on(async {
        let server = ApiServer::builder().pod("default", "web-0", pod);
        let server = server.start().await?;
        run(Client::new(&server.config())?).await
    });
    ran.expect("an example that runs");
}
