//! exec, cp and port-forward, which end: complete and right, or with an error that says that the
//! connection was lost.

use std::{fs, path::Path};

use kubewire::{
    Client, Error, Result,
    exec::Subprotocol,
    session::port_forward::ForwardProtocol,
    testing::{ApiServer, ApiServerBuilder},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    sync::OnceCell,
};

use super::{
    harness::{Random, run_all},
    proxy::{Plan, Proxy},
};

/// The port whose application answers with as many bytes as it was told, then those that it got.
const PORT: u16 = 7;

async fn application(mut socket: DuplexStream) {
    let Ok(length) = socket.read_u32().await else {
        return;
    };
    let mut bytes = vec![0; length as usize];
    if socket.read_exact(&mut bytes).await.is_ok() {
        let _ = socket.write_all(&bytes).await;
    }
}

struct Fixture {
    server: ApiServer,
    proxy: Proxy,
    client: Client,
}

impl Fixture {
    async fn new(builder: ApiServerBuilder, plan: Plan) -> Self {
        let builder = builder.pod("default", "web-0", |pod| {
            let pod = pod.port_with(PORT, application);
            pod.container("main", ["sleep", "infinity"])
        });
        let server = builder.start().await.unwrap();
        let proxy = Proxy::new(&server, [plan]).await;
        let client = Client::new(&proxy.config(&server)).unwrap();
        Self {
            server,
            proxy,
            client,
        }
    }

    /// Holds a result against what is promised; returns the bytes carried.
    fn check(&self, result: Result<()>) -> [u64; 2] {
        if let Err(error) = result {
            assert!(matches!(error, Error::Network(_)), "{error:?}");
            assert!(self.proxy.faults() > 0, "without a fault: {error}");
        }
        let _ = &self.server;
        self.proxy.carried()
    }
}

/// Mostly without TLS, which takes its time.
fn builder(random: &mut Random) -> ApiServerBuilder {
    match random.below(8) {
        0 => ApiServer::builder(),
        _ => ApiServer::builder().plain(),
    }
}

async fn exec(fixture: Fixture, input: Vec<u8>, protocol: Subprotocol) -> [u64; 2] {
    let pod = fixture.client.pod("default", "web-0");
    let command = ["sh", "-c", "cat; printf done >&2; exit 3"];
    let exec = match protocol {
        // Only v5 can end the input, which `cat` waits for.
        Subprotocol::V5 => pod.exec(command).input(input.clone()),
        _ => pod.exec(command),
    };
    let result = exec.subprotocols([protocol]).output().await;
    let result = result.map(|output| {
        assert!(output.stdout == input, "{} bytes", output.stdout.len());
        assert_eq!(output.stderr, b"done");
        assert_eq!(output.status.code(), Some(3));
    });
    fixture.check(result)
}

async fn short_exec(plan: Plan) -> [u64; 2] {
    let fixture = Fixture::new(ApiServer::builder().plain(), plan).await;
    exec(fixture, b"input".to_vec(), Subprotocol::V5).await
}

async fn any_exec(random: &mut Random) {
    let protocols = [Subprotocol::V5, Subprotocol::V4];
    let protocol = protocols[random.below(2) as usize];
    let size = match protocol {
        Subprotocol::V5 => random.below(200_000),
        _ => 0,
    };
    let input = random.bytes(size);
    let plan = Plan::random(random, [size + 3000, size + 3000]);
    exec(Fixture::new(builder(random), plan).await, input, protocol).await;
}

async fn copy(fixture: Fixture, contents: &[Vec<u8>], to: bool) -> [u64; 2] {
    let directory = tempfile::tempdir().unwrap();
    let (from, there) = (
        directory.path().join("from"),
        directory.path().join("there"),
    );
    fs::create_dir(&from).unwrap();
    for (name, bytes) in contents.iter().enumerate() {
        fs::write(from.join(name.to_string()), bytes).unwrap();
    }
    let pod = fixture.client.pod("default", "web-0");
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let result = match to {
        true => pod.copy_to(&from, text(&there)).run().await,
        false => pod.copy_from(text(&from), &there).run().await,
    };
    let whole = |name: usize| fs::read(there.join(name.to_string())).ok();
    let result = result.map(|copied| {
        assert_eq!(copied.left_out.len(), 0);
        for (name, bytes) in contents.iter().enumerate() {
            assert!(whole(name).as_ref() == Some(bytes), "file {name}");
        }
    });
    if !to {
        for (name, bytes) in contents.iter().enumerate() {
            let found = whole(name);
            assert!(
                found.is_none_or(|found| found == *bytes),
                "half of file {name}"
            );
        }
    }
    fixture.check(result)
}

async fn short_copy(plan: Plan) -> [u64; 2] {
    let fixture = Fixture::new(ApiServer::builder().plain(), plan).await;
    copy(fixture, &[b"a file".to_vec()], false).await
}

async fn any_copy(random: &mut Random) {
    let mut total = 0;
    let mut contents = Vec::new();
    for _ in 0..random.below(4) {
        let size = random.below(100_000);
        contents.push(random.bytes(size));
        total += size + 2048;
    }
    let to = random.one_in(2);
    let plan = Plan::random(random, [total + 3000, total + 3000]);
    copy(Fixture::new(builder(random), plan).await, &contents, to).await;
}

/// What a handle's I/O error is about.
fn inner(error: std::io::Error) -> Error {
    let error = error.into_inner().expect("a cause");
    *error.downcast().expect("an error of the library")
}

async fn forward(fixture: Fixture, data: &[Vec<u8>], protocol: ForwardProtocol) -> [u64; 2] {
    let pod = fixture.client.pod("default", "web-0");
    let result = async {
        let forward = pod.port_forward().subprotocols([protocol]);
        let tunnel = forward.connect().await?;
        let connections = data.iter().map(async |data| {
            let stream = tunnel.open(PORT).await?;
            let (mut read, mut write) = tokio::io::split(stream);
            let mut got = Vec::new();
            let send = async {
                write.write_u32(data.len() as u32).await?;
                write.write_all(data).await?;
                write.flush().await
            };
            let (sent, read) = tokio::join!(send, read.read_to_end(&mut got));
            read.map_err(inner)?;
            sent.map_err(inner)?;
            assert!(got == *data, "{} bytes of {}", got.len(), data.len());
            Ok::<_, Error>(())
        });
        for result in futures_util::future::join_all(connections).await {
            result?;
        }
        Ok(())
    };
    let result = result.await;
    fixture.check(result)
}

async fn short_forward(plan: Plan) -> [u64; 2] {
    let fixture = Fixture::new(ApiServer::builder().plain(), plan).await;
    forward(fixture, &[b"input".to_vec()], ForwardProtocol::Spdy).await
}

async fn any_forward(random: &mut Random) {
    let protocol = ForwardProtocol::ALL[random.below(3) as usize];
    let mut total = 0;
    let mut data = Vec::new();
    for _ in 0..1 + random.below(3) {
        let size = random.below(100_000);
        data.push(random.bytes(size));
        total += size;
    }
    let plan = Plan::random(random, [total + 3000, total + 3000]);
    forward(Fixture::new(builder(random), plan).await, &data, protocol).await;
}

#[test]
fn an_exec_is_right_or_says_that_its_connection_was_lost() {
    let carried = OnceCell::new();
    run_all(async move |seed| match seed % 2 {
        0 => {
            let whole = carried.get_or_init(async || short_exec(Plan::default()).await);
            let whole = *whole.await;
            short_exec(Plan::nth(seed / 2, whole)).await;
        }
        _ => any_exec(&mut Random::new(seed)).await,
    });
}

#[test]
fn a_copy_is_right_or_says_that_its_connection_was_lost() {
    let carried = OnceCell::new();
    run_all(async move |seed| match seed % 2 {
        0 => {
            let whole = carried.get_or_init(async || short_copy(Plan::default()).await);
            let whole = *whole.await;
            short_copy(Plan::nth(seed / 2, whole)).await;
        }
        _ => any_copy(&mut Random::new(seed)).await,
    });
}

#[test]
fn a_forwarded_connection_is_right_or_says_that_it_was_lost() {
    let carried = OnceCell::new();
    run_all(async move |seed| match seed % 2 {
        0 => {
            let whole = carried.get_or_init(async || short_forward(Plan::default()).await);
            let whole = *whole.await;
            short_forward(Plan::nth(seed / 2, whole)).await;
        }
        _ => any_forward(&mut Random::new(seed)).await,
    });
}
