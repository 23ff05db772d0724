//! port-forward, joined: in flow the connections that a client opens and a tunnel, out they go to
//! the pod, each with how it ended.

use std::{future::IntoFuture, pin::Pin, sync::Arc};

use tokio::{task::JoinSet, time::Instant};

use crate::{
    Result,
    client::port_forward::{Traffic, Tunnel},
    error::panic::caught_in,
    server::{Forwarding, IncomingForward},
    transport::ws::relay::{Copied, splice},
};

/// One connection through a [`ForwardSplice`] that has ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Forwarded {
    /// The port that the client asked for.
    pub port: u16,
    /// What it carried: sent to the pod, received from it.
    pub traffic: Traffic,
    /// Whether both directions ended in order; else what broke. The client has been told.
    pub result: Result<()>,
}

type Report = Arc<dyn Fn(Forwarded) + Send + Sync>;

/// A client's port-forward, joined to a tunnel when this is awaited, until the client has left.
///
/// Each connection of the client becomes one of the tunnel, and fails alone, with the words of the
/// pod's side. Payload goes through as it came; neither end is read while the other does not take
/// what it sent. The client's end resets those that have not ended.
///
/// Dropping the future resets all connections.
///
/// ```no_run
/// # use kubewire::{Client, port_forward::ForwardProtocol, server::{PortForwardRequest, Refusal}};
/// # use http::{Request, Response};
/// # use http_body_util::Full;
/// # use bytes::Bytes;
/// use kubewire::gateway::Forwarded;
///
/// async fn forward<B>(
///     client: Client,
///     mut request: Request<B>,
/// ) -> Result<Response<Full<Bytes>>, Refusal> {
///     let asked = PortForwardRequest::parse(&mut request)?;
///     let tunnel = client.pod("default", "web-0").port_forward().connect().await?;
///     let (response, opening) = asked.accept(&[ForwardProtocol::Spdy])?;
///     tokio::spawn(async move {
///         let splice = opening.await?.splice(tunnel);
///         splice.each(|Forwarded { port, traffic, .. }| println!("port {port}: {traffic:?}")).await;
///         Ok::<_, kubewire::Error>(())
///     });
///     Ok(response)
/// }
/// ```
#[must_use = "nothing is joined until it is awaited"]
pub struct ForwardSplice {
    forwarding: Forwarding,
    tunnel: Tunnel,
    report: Option<Report>,
}

debug_fields!(ForwardSplice { forwarding, tunnel });

impl Forwarding {
    /// Joins the session to a tunnel to a pod; [`ForwardSplice`] says how.
    pub fn splice(self, tunnel: Tunnel) -> ForwardSplice {
        ForwardSplice {
            forwarding: self,
            tunnel,
            report: None,
        }
    }
}

impl ForwardSplice {
    /// Tells `report` of each connection when it has ended.
    pub fn each(mut self, report: impl Fn(Forwarded) + Send + Sync + 'static) -> Self {
        self.report = Some(Arc::new(report));
        self
    }

    async fn run(self) {
        let mut connections = JoinSet::new();
        while let Some(incoming) = self.forwarding.accept().await {
            while connections.try_join_next().is_some() {}
            connections.spawn(forward(incoming, self.tunnel.clone(), self.report.clone()));
        }
        // They end with their client's session, and say so.
        while connections.join_next().await.is_some() {}
    }
}

impl IntoFuture for ForwardSplice {
    type Output = ();
    type IntoFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

async fn forward(incoming: IncomingForward, tunnel: Tunnel, report: Option<Report>) {
    let (port, begin, copied) = (incoming.port(), Instant::now(), Copied::default());
    let who = format!("the connection to port {port}");
    let result = match caught_in(&who, tunnel.open(port)).await {
        Ok(far) => {
            let spliced = caught_in(&who, splice(incoming.into_stream(), far, &copied)).await;
            spliced.inspect_err(|error| tunnel.note(error))
        }
        Err(error) => {
            incoming.fail(&error.to_string());
            Err(error)
        }
    };
    if let Some(report) = report {
        report(Forwarded {
            port,
            traffic: Traffic::of(&copied, begin),
            result,
        });
    }
}
