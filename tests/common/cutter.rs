//! Connections that are cut: in flow the bytes until each of the next cuts, out comes a
//! configuration whose connections obey.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![allow(dead_code, reason = "each test uses its part")]

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex},
};

use kubewire::Config;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    net::TcpStream,
};

/// A way to a server on which connections are cut.
#[derive(Clone, Default)]
pub(crate) struct Cutter(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Bytes until each of the next cuts.
    gaps: VecDeque<u64>,
    passed: u64,
    cuts: usize,
}

impl State {
    /// How many of so many bytes may pass; and whether that is all.
    fn pass(&mut self, bytes: usize) -> (usize, bool) {
        let Some(left) = self.gaps.front_mut() else {
            self.passed += bytes as u64;
            return (bytes, false);
        };
        let passing = (*left).min(bytes as u64);
        *left -= passing;
        self.passed += passing;
        let is_cut = *left == 0;
        if is_cut {
            self.gaps.pop_front();
            self.cuts += 1;
        }
        (passing as usize, is_cut)
    }
}

impl Cutter {
    pub(crate) fn on(&self, config: Config) -> Config {
        let cutter = self.clone();
        config.with_dialer(move |host, port| {
            let cutter = cutter.clone();
            async move {
                let server = TcpStream::connect((host, port)).await?;
                let (near, far) = duplex(64 << 10);
                // However it ends, both are dropped.
                tokio::spawn(async move { cutter.relay(far, server).await });
                Ok(near)
            }
        })
    }

    pub(crate) fn plan(&self, gaps: impl IntoIterator<Item = u64>) {
        self.0.lock().unwrap().gaps = gaps.into_iter().collect();
    }

    /// The bytes since this was asked last.
    pub(crate) fn passed(&self) -> u64 {
        std::mem::take(&mut self.0.lock().unwrap().passed)
    }

    pub(crate) fn cuts(&self) -> usize {
        self.0.lock().unwrap().cuts
    }

    async fn relay(&self, mut client: DuplexStream, mut server: TcpStream) -> io::Result<()> {
        let (mut sent, mut received) = (vec![0; 8192], vec![0; 8192]);
        loop {
            let (read, is_sent) = tokio::select! {
                read = client.read(&mut sent) => (read?, true),
                read = server.read(&mut received) => (read?, false),
            };
            if read == 0 {
                return Ok(());
            }
            let (passing, is_cut) = self.0.lock().unwrap().pass(read);
            match is_sent {
                true => server.write_all(&sent[..passing]).await?,
                false => client.write_all(&received[..passing]).await?,
            }
            if is_cut {
                return Ok(());
            }
        }
    }
}
