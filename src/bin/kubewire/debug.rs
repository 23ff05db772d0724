//! `kubewire debug`: an ephemeral container beside those of a pod, waited for and attached to.

use std::time::Duration;

use clap::{Args, ValueEnum};
use kubewire::{
    attach::Stdio,
    debug::{DebugContainer, DebugProfile, Debugger},
};

use crate::{
    attach,
    connection::Connection,
    duration,
    failure::{Failure, note},
    flags, keys,
    lines::Lines,
    set::Set as _,
    target::{self, Terminal},
    terminal,
    workload::{self, Wait},
};

/// Look into a pod that runs, from an ephemeral container
///
/// The container stays in the pod's object until the pod is deleted. Copies of pods and nodes
/// (--copy-to, node/NAME) are kubectl's.
///
/// Exit codes: 0 when the container ends, whatever its own, which the server does not send, or
/// when it is left by keys; 1 if it does not start, and for other errors; 128 and a signal's number
/// for a signal.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    kubewire debug web-0 -it --image busybox\n  \
    kubewire debug deploy/web -it --image busybox --target main -- sh\n  \
    kubewire debug web-0 --image nicolaka/netshoot --profile netadmin --attach -- ss -tnp")]
pub(crate) struct Debug {
    /// The pod: NAME, pod/NAME, or what selects pods, of which one is taken: deploy/NAME, svc/NAME
    #[arg(value_name = "POD")]
    pod: String,
    /// The container's image
    #[arg(long, value_name = "IMAGE")]
    image: String,
    /// When the image is pulled; without, what the server chooses
    #[arg(long, value_name = "POLICY", value_parser = ["Always", "IfNotPresent", "Never"])]
    image_pull_policy: Option<String>,
    /// The container's name; without, debugger- and five letters
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// The container whose processes it is to see
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// What it may do
    #[arg(long, value_name = "PROFILE", value_enum, default_value_t = Profile::General)]
    profile: Profile,
    /// A variable of its environment; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = |it: &str| flags::pair(it, "NAME=VALUE"))]
    env: Vec<(String, String)>,
    /// What is behind -- are arguments for the image's entry point, not a command
    #[arg(long)]
    arguments_only: bool,
    /// Pass stdin on to it; it is attached to
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Use a terminal, with --stdin
    #[arg(short, long, requires = "stdin")]
    tty: bool,
    /// Attach to it, or not; without, if it has stdin
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    attach: Option<bool>,
    /// The keys that leave it running and end this: characters and ctrl-LETTER, with commas between
    /// them; empty for none
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", value_parser = keys::sequence)]
    detach_keys: keys::Sequence,
    /// How long it may take to start: 1m30s, or a number of seconds
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration::or_seconds)]
    timeout: Duration,
    /// Leave out hints
    #[arg(short, long)]
    quiet: bool,
    /// What it runs instead of the image's entry point
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Profile {
    /// Trace processes
    General,
    /// Nothing that the baseline standard of pod security forbids
    Baseline,
    /// What the restricted standard allows
    Restricted,
    /// Configure the network
    #[value(name = "netadmin")]
    NetAdmin,
    /// All
    #[value(name = "sysadmin")]
    SysAdmin,
}

impl From<Profile> for DebugProfile {
    fn from(profile: Profile) -> Self {
        match profile {
            Profile::General => Self::General,
            Profile::Baseline => Self::Baseline,
            Profile::Restricted => Self::Restricted,
            Profile::NetAdmin => Self::NetAdmin,
            Profile::SysAdmin => Self::SysAdmin,
        }
    }
}

impl Debug {
    pub(crate) async fn run(self, connection: &Connection) -> Result<u8, Failure> {
        if self.pod.starts_with("node/") || self.pod.starts_with("nodes/") {
            bail!(
                "a node is debugged by a pod of its own, which is kubectl's: use kubectl debug \
                 node/NAME"
            );
        }
        if !is_image(&self.image) {
            bail!(
                "invalid image name {:?}: a kubelet could not pull it",
                self.image
            );
        }
        let client = connection.client()?;
        let wait = Wait::Any(Duration::ZERO);
        let found = workload::pod(&client, client.namespace(), &self.pod, wait).await?;
        let pod = client.pod(client.namespace(), found.name);
        let container = self.container(pod.debug(&self.image));
        let attaches = self.attach.unwrap_or(self.stdin);
        if !attaches {
            let debugger = container.create().await?;
            self.hint(&format!("Created container {}.", debugger.name()));
            return Ok(0);
        }
        let started = container.start().await?;
        self.hint(&format!("Started container {}.", started.name()));
        if started.has_ended() {
            return print_log(&pod, &started).await;
        }
        self.attach(&started).await
    }

    fn hint(&self, text: &str) {
        if !self.quiet {
            note(text);
        }
    }

    fn container(&self, container: DebugContainer) -> DebugContainer {
        let name = target::named(self.container.as_ref());
        let mut container = container
            .profile(self.profile.into())
            .timeout(self.timeout)
            .set(name, DebugContainer::name)
            .set(self.target.as_ref(), DebugContainer::target)
            .set(
                self.image_pull_policy.as_ref(),
                DebugContainer::image_pull_policy,
            )
            .set_if(self.stdin, DebugContainer::stdin)
            .set_if(self.tty, DebugContainer::tty);
        for (name, value) in &self.env {
            container = container.env(name, value);
        }
        match (&self.command[..], self.arguments_only) {
            ([], _) => container,
            (words, true) => container.args(words),
            (words, false) => container.command(words),
        }
    }

    async fn attach(&self, debugger: &Debugger) -> Result<u8, Failure> {
        let raw = self.stdin && terminal::stdin_is_one();
        let size = terminal::size();
        // The container has a terminal, whatever there is on this side.
        let terminal = self.tty.then_some(Terminal { size, raw });
        let attach = debugger
            .attach()
            .set_if(self.stdin, |attach| attach.stdin(Stdio::piped()))
            .set_if(self.tty, |attach| attach.tty(size));
        let attached = attach.spawn().await?;
        attach::relay(attached, terminal, &self.detach_keys, self.quiet).await
    }
}

/// Whether it can be an image's name (`distribution/reference`): what cannot would stay with the pod.
fn is_image(name: &str) -> bool {
    const NAME: &str = r"(?x)^
        (([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])? | \[[A-Fa-f0-9:]+\]) (:[0-9]+)? /)?
        [a-z0-9]+ (([._]|__|-+)[a-z0-9]+)* (/[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*)*
        (:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})? (@[A-Za-z][A-Za-z0-9.+_-]*:[A-Fa-f0-9]{32,})? $";
    regex::Regex::new(NAME).is_ok_and(|image| image.is_match(name))
}

/// Prints what a container wrote that has ended before it could be attached to.
async fn print_log(pod: &kubewire::Pod, debugger: &Debugger) -> Result<u8, Failure> {
    let mut out = Lines::start()?;
    let mut lines = pod.logs().container(debugger.name()).stream();
    while let Some(line) = lines.next().await {
        let line = line?;
        out.begin();
        out.write(&line.bytes);
        out.end(line.end).await?;
    }
    out.finish().await.map(|()| 0)
}
