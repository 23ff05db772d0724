//! Copies between pods: in flows a path in one container, out comes a copy of it in another, by way
//! of this machine's memory.

use std::{path::PathBuf, time::Duration};

use super::{
    Copied,
    from::Source,
    glob::Exclude,
    lock,
    options::Options,
    pipe::{PipeReader, PipeWriter, pipe},
    progress::Progress,
    relay::relay,
    side::Side,
    to::{Place, Work},
    tools::{Method, Tools, without_tools},
    unnamed,
    unpack::Bounds,
    verify::verify_begun,
};
#[cfg(doc)]
use super::{CopyFrom, CopyTo};
use crate::{Pod, Result};

/// A copy from a container to one of another pod, or of the same. It streams: nothing is written on
/// this machine.
///
/// Both need `tar`. What the source sends is not trusted: a name that leads out is an error, links
/// that lead out and devices are [left out](Copied::left_out). The destination, what is kept, and
/// how it is verified before it has its name are those of [`CopyTo`]; after a cut, files that are
/// whole do not come again.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = kubewire::testing::ApiServer::builder()
/// #     .pod("default", "web-0", |pod| pod.container("main", ["sleep", "infinity"]))
/// #     .pod("default", "web-1", |pod| pod.container("main", ["sleep", "infinity"]))
/// #     .start()
/// #     .await?;
/// # let client = kubewire::Client::new(&server.config())?;
/// # let there = tempfile::tempdir()?;
/// # std::fs::write(there.path().join("app.log"), "hello\n")?;
/// # let log = there.path().join("app.log");
/// # let log = log.to_str().expect("it is UTF-8");
/// let (web_0, web_1) = (client.pod("default", "web-0"), client.pod("default", "web-1"));
/// let copied = web_0.copy_between(log, &web_1, format!("{log}.copy")).run().await?;
/// assert_eq!((copied.files, copied.bytes), (1, 6));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is copied until it is run"]
pub struct CopyBetween {
    options: Options,
    to: Side,
    source: String,
    destination: String,
}

impl CopyBetween {
    pub(super) fn new(from: &Pod, source: String, to: &Pod, destination: String) -> Self {
        Self {
            options: Options::new(from),
            to: Side::new(to),
            source,
            destination,
        }
    }

    super::copy_options!();

    setters! {
        /// The container that is copied to; without one the other pod's default container, or its only
        /// one.
        fn to_container(name: impl Into<String>) to.container = Some(name.into());
    }

    /// Copies, and compares every file in both containers with what has passed: there always, and in
    /// the container that is copied from if it can, as [`CopyFrom::run`] does.
    ///
    /// Cancel safety: as that of [`CopyTo::run`].
    ///
    /// # Errors
    ///
    /// Those of [`CopyFrom::run`] and [`CopyTo::run`].
    pub async fn run(&self) -> Result<Copied> {
        let begin = || self.begin();
        self.options.run("copy from", begin, Begun::attempt).await
    }

    async fn begin(&self) -> Result<Begun> {
        let from = Source::new(&self.source);
        let own = from.name.as_ref().map(|name| name.as_bytes().to_vec());
        let place = Place::new(&self.destination, own);
        let place = place.ok_or_else(|| unnamed(self.source.as_ref()))?;
        let tools = Tools::look(&self.options.side, from.rooted().as_bytes()).await?;
        let mut side = tools.on(&self.options.side);
        if tools.method_from(&side)? == Method::Cat {
            return Err(without_tools(&side));
        }
        let plan = self.options.plan(PathBuf::from(&self.source));
        let to = Side {
            sum: side.sum,
            ..self.to.clone()
        };
        let mut work = Work::begin(&to, place, plan, tools.is_directory()).await?;
        // Both make the same digests: `cksum` is in POSIX, so whoever has the other has it too.
        side.sum = work.side.sum;
        if work.method == Method::Cat {
            return Err(without_tools(&self.to));
        }
        work.is_local = false;
        Ok(Begun {
            side,
            from,
            tools,
            work,
            compared: false,
        })
    }
}

/// A copy under way, which outlives its connections.
struct Begun {
    side: Side,
    from: Source,
    tools: Tools,
    work: Work,
    /// Whether the source was found to be the same as what has passed.
    compared: bool,
}

impl Begun {
    async fn attempt(&mut self) -> Result<Copied> {
        let Self { from, work, .. } = self;
        if work.resume().await? {
            return self.copied().await;
        }
        let mut list = Vec::new();
        if !lock(&work.packed).done.is_empty() {
            match from.linked(&self.side, &self.tools).await? {
                Some(linked) => {
                    let mut packed = lock(&work.packed);
                    packed.done.retain(|name, _| {
                        from.can_be_without(name) && !name.is_empty() && !linked.contains(&name[..])
                    });
                    list = from.without(&Exclude::default(), packed.done.keys().map(|it| &it[..]));
                }
                None => lock(&work.packed).done.clear(),
            }
        }
        let source = from.packed(&self.side, self.tools.is_gnu(), list);
        let (to, input) = pipe();
        let (plan, packed) = (work.plan.clone(), work.packed.clone());
        let progress = plan.progress.clone();
        let base = from.name.as_ref().map(PathBuf::from);
        let job = move |archive: PipeReader| {
            let packed = &mut lock(&packed);
            let out = PipeWriter::new(to, archive.awaited());
            relay(
                archive,
                base.as_deref(),
                Bounds::default(),
                &plan,
                packed,
                out,
            )
        };
        let receiving = async {
            let done = self.side.receive(source, &progress, job).await;
            self.tools.forgive_change(done)
        };
        let exec = work.extract();
        let stage = work.stage.as_ref();
        let delivering = Box::pin(work.side.deliver(exec, stage, input, receiving));
        let (side, tools) = (&self.side, &self.tools);
        from.counting(side, tools, &progress, delivering).await?;
        let records = lock(&work.packed).records.clone();
        let rooted = from.rooted();
        let (place, shown) = (rooted.as_bytes(), rooted.as_ref());
        self.compared = verify_begun(&self.side, place, shown, records.clone()).await?;
        work.settle(records).await?;
        self.copied().await
    }

    async fn copied(&mut self) -> Result<Copied> {
        let copied = self.work.copied().await?;
        Ok(Copied {
            compared: self.compared,
            ..copied
        })
    }
}
