//! What the public types are to the compiler: all can move to another thread, also after they have
//! been polled, and all but those that one task reads can be shared between threads.

use kubewire::{
    AnyWebSocket, Client, Config, Error, KeepaliveConfig, Over, Pod, Resource, attach, auth,
    config, exec, logs, net, port_forward, request, session, watch,
};

const fn is<T: Send + Sync + Unpin + 'static>() {}
const fn is_one_tasks<T: Send + Unpin + 'static>() {}
const fn borrows<T: Send + Sync + Unpin>() {}

macro_rules! all {
    ($($name:ty),* $(,)?) => {
        const _: () = { $(is::<$name>();)* };
    };
}

all![Client, Config, Error, KeepaliveConfig, Pod, Resource,];
all![
    auth::Connector,
    config::Impersonation,
    config::KubeconfigOptions
];
all![net::Alpn];
all![
    attach::Attach,
    attach::Attached,
    exec::Child,
    exec::ChildStderr,
    exec::ChildStdin,
    exec::ChildStdout,
    exec::Container,
    exec::Exec,
    exec::ExitStatus,
    exec::Output,
    exec::Stdio,
    exec::Streams,
    exec::Subprotocol,
    exec::TerminalSize,
];
all![
    port_forward::ForwardPort,
    port_forward::ForwardProtocol,
    port_forward::ForwardStream,
    port_forward::ForwardTarget,
    port_forward::HalfClose,
    port_forward::ListenEvent,
    port_forward::Listener,
    port_forward::PortForward,
    port_forward::ResolvedPort,
    port_forward::Traffic,
    port_forward::Tunnel,
    port_forward::WhenFull,
];
all![
    logs::LogEnd,
    logs::LogLine,
    logs::LogSource,
    logs::LogUpdate,
    logs::Logs,
    logs::MergedLogs,
    logs::SourcedLine,
    logs::SourcedUpdate,
    logs::Stamp,
];
all![
    watch::Change<watch::Object>,
    watch::Event,
    watch::Mirror<watch::Object>,
    watch::Object,
    watch::ObjectKey,
    watch::ObjectMeta,
    watch::TypedEvent<serde_json::Value>,
    watch::Update,
    watch::Watch,
];
all![
    request::ApiResource,
    request::Deleted<serde_json::Value>,
    request::Discovery,
    request::HttpProxy,
    request::List<serde_json::Value>,
    request::Request,
];
all![
    session::Messages,
    session::RemoteCommand,
    session::logs::Logs,
    session::port_forward::Channels,
    session::port_forward::Spdy,
    session::watch::Watch,
];

const _: () = {
    // What one task at a time reads. It holds requests under way, which nobody needs to share.
    is_one_tasks::<AnyWebSocket>();
    is_one_tasks::<net::Connection>();
    is_one_tasks::<logs::LogLines>();
    is_one_tasks::<logs::MergedLines>();
    is_one_tasks::<watch::Updates>();
    is_one_tasks::<watch::Events<serde_json::Value>>();
    is_one_tasks::<request::Body>();
    is_one_tasks::<request::MaybeUpgraded>();
    is_one_tasks::<request::Upgraded>();
    is_one_tasks::<Over<AnyWebSocket>>();
    borrows::<request::Patch<'_, serde_json::Value>>();
};

mod server {
    use kubewire::server;

    use super::is;

    all![
        server::ForwardStream,
        server::Forwarding,
        server::IncomingForward,
        server::Output,
        server::PortForwardRequest,
        server::Process,
        server::Refusal,
        server::RemoteCommandRequest,
        server::Stdin,
    ];
}

#[cfg(unix)]
mod testing {
    use kubewire::testing;

    use super::is;

    all![
        testing::ApiServer,
        testing::ApiServerBuilder,
        testing::BodyFault,
        testing::ContainerBuilder,
        testing::Fault,
        testing::PodBuilder,
        testing::ResourceBuilder,
        testing::Rule,
    ];
}

/// The futures that a program spawns may be spawned on every runtime of tokio.
#[test]
fn futures_of_the_verbs_can_be_spawned() {
    fn sends<F: Future + Send>(_: fn(Pod) -> F) {}
    sends(|pod| async move { pod.exec(["true"]).output().await });
    sends(|pod| async move { pod.exec(["true"]).spawn().await });
    sends(|pod| async move { pod.attach().spawn().await });
    sends(|pod| async move { pod.port_forward().connect().await });
    sends(|pod| async move { pod.logs().stream().next().await });
}
