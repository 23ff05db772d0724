//! `kubewire cp`: copies files and trees to and from containers, and between them.

use std::{
    collections::{HashMap, hash_map::Entry},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use kubewire::{
    Client, Error, Pod,
    copy::{Copied, CopyBetween, Progress},
    error::Hint,
    exec::{Exec, Input, Stdio},
};

use crate::{
    bar::Bar,
    connection::Connection,
    duration,
    exec::{code, exit_code},
    failure::{Failure, Local as _},
    set::Set as _,
    signals::Signals,
    target,
};

/// How long what is not whole may take to be removed.
const FAREWELL: Duration = Duration::from_secs(6);

/// Copy files and directories to, from and between containers
///
/// The container needs `tar`, or a shell and `cat`. What arrived is compared with what was sent, file
/// by file, and has its name only then. A directory that is copied to a container goes into one that
/// is there already, and takes the name that it is given otherwise; from a container it always takes
/// the name.
///
/// Exit codes: 0 if all was copied; 1 if not, or if something was left out; 128 and a signal's
/// number, such as 130 after Ctrl-C, with which nothing is left that is not whole.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    kubewire cp site web-0:/srv/site\n  \
    kubewire cp other/web-0:/var/log/app.log . -c main\n  \
    kubewire cp a.txt b.txt web-0:/tmp\n  \
    kubewire cp 'web-0:/var/log/*.log' logs --retries 5\n  \
    kubewire cp --exclude node_modules --exclude '*.tmp' site web-0:/srv/site\n  \
    kubewire cp web-0:/data/dump db-1:/data/dump\n  \
    kubewire cp web-0:/srv/site - | gzip > site.tar.gz\n  \
    gunzip < site.tar.gz | kubewire cp - web-0:/srv")]
pub(crate) struct Cp {
    /// What to copy and, last, where to: a path of this machine, POD:PATH or NAMESPACE/POD:PATH,
    /// whose path may be a pattern such as /var/log/*.log; - is a tar archive on a standard stream
    #[arg(value_name = "PATH", required = true, num_args = 2.., value_parser = place)]
    paths: Vec<Place>,
    /// The container, of both pods if there are two; without it the pod's default container, or
    /// its first
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Keep no modes: copies have those of new files
    #[arg(long)]
    no_preserve: bool,
    /// Keep the owner's and the group's numbers, which needs root where the copy goes
    #[arg(long, conflicts_with = "no_preserve")]
    preserve_owner: bool,
    /// How often to go on with a copy whose connection was cut; without end if negative
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    retries: i64,
    /// How long each copy may take, all attempts together: 1m30s, or a number of seconds; 0 for
    /// any time
    #[arg(long, value_name = "DURATION", value_parser = duration::or_any)]
    timeout: Option<Duration>,
    /// Leave out what matches, and all below it: *, ? and [a-z], from any name of the path on
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// Show no progress, and no hints: only errors
    #[arg(short, long)]
    quiet: bool,
}

/// Sets what the flags say.
macro_rules! options {
    ($flags:expr, $target:expr, $copy:expr) => {{
        let mut copy = $copy
            .set($target.container.as_ref(), |copy, it| copy.container(it))
            .set_if($flags.no_preserve, |copy| copy.no_preserve())
            .set_if($flags.preserve_owner, |copy| copy.preserve_owner())
            .set($flags.timeout, |copy, timeout| copy.deadline(timeout));
        for pattern in &$flags.exclude {
            copy = copy.exclude(pattern);
        }
        // Less than none is without end.
        copy.retries(u32::try_from($flags.retries).unwrap_or(u32::MAX))
    }};
}

/// Where something is: a standard stream, a path of this machine, or one of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Side<T> {
    Stream,
    Here(PathBuf),
    There(T, String),
}

/// The same, with the names of pods, and of their namespaces where they are named.
type Place = Side<(Option<String>, String)>;

/// `[[NAMESPACE/]POD:]PATH` (`k8s.io/kubectl/pkg/cmd/cp/cp.go`, `extractFileSpec`).
fn place(text: &str) -> Result<Place, String> {
    let Some((pod, path)) = text.split_once(':') else {
        return match text {
            "" => Err("an empty path".to_owned()),
            "-" => Ok(Place::Stream),
            text => Ok(Place::Here(text.into())),
        };
    };
    // So a file whose name has a colon can be named; and a drive of Windows.
    if pod.starts_with(['.', '/']) || (cfg!(windows) && pod.len() == 1) {
        return Ok(Place::Here(text.into()));
    }
    let (namespace, pod) = match pod.split_once('/') {
        Some((namespace, pod)) => (Some(namespace), pod),
        None => (None, pod),
    };
    let is_name = |name: &str| !name.is_empty() && !name.contains('/');
    if !is_name(pod) || !namespace.is_none_or(is_name) || path.is_empty() {
        return Err(
            "what is copied is [[NAMESPACE/]POD:]PATH; a file here whose name has a colon is \
                    ./NAME"
                .to_owned(),
        );
    }
    let namespace = namespace.map(str::to_owned);
    Ok(Place::There((namespace, pod.to_owned()), path.to_owned()))
}

#[derive(Debug, Clone)]
struct Target {
    pod: Pod,
    container: Option<String>,
}

impl Cp {
    pub(crate) async fn run(self, connection: &Connection) -> Result<u8, Failure> {
        let client = connection.client()?;
        let mut signals = Signals::new().local("signals cannot be received")?;
        let progress = Progress::default();
        let ended = tokio::select! {
            done = self.copy(&client, &progress) => done,
            number = signals.end() => Err(Failure::Signal(number)),
        };
        // A copy past its time still removes what it kept aside. A second signal does not wait.
        tokio::select! {
            left = tokio::time::timeout(FAREWELL, progress.settled()) => {
                for path in left.unwrap_or_default() {
                    note!("may be left in the container, which did not remove it: {path}");
                }
            }
            _ = signals.next() => {}
        }
        ended
    }

    async fn copy(&self, client: &Client, progress: &Progress) -> Result<u8, Failure> {
        let sides = self.sides(client).await?;
        let Some((destination, sources)) = sides.split_last() else {
            return Ok(0);
        };
        let several = sources.len() > 1;
        let has_stream = sources.iter().any(|it| matches!(it, Side::Stream));
        if several && has_stream {
            bail!("- is one archive: it takes no other source beside it");
        }
        let destination = &match destination {
            Side::There(target, path) if !has_stream => {
                let path = target.inside(path, several).await?;
                Side::There(target.clone(), path)
            }
            destination => destination.clone(),
        };
        let mut code = 0;
        for source in sources {
            let streams = matches!((source, destination), (Side::Stream, _) | (_, Side::Stream));
            let bar = Bar::start(progress, &shown(source), self.quiet || streams);
            let copied = match (source, destination) {
                (Side::Here(source), Side::There(target, path)) => {
                    self.to(target, source, path, progress).await
                }
                (Side::There(target, path), Side::Here(destination)) => {
                    self.from(target, path, destination, several, progress)
                        .await
                }
                (Side::There(from, source), Side::There(to, path)) => {
                    self.between(from, source, to, path, progress).await
                }
                (Side::Stream, Side::There(target, path)) => {
                    let exec = target
                        .of(target.pod.archive_into(path))
                        .require_half_close();
                    let stdin = Input::reader(tokio::io::stdin());
                    return self.stream(exec.input(stdin)).await;
                }
                (Side::There(target, path), Side::Stream) if !several => {
                    let exec = target.of(target.pod.archive_of(path));
                    return self.stream(exec.stdout(Stdio::inherit())).await;
                }
                (_, Side::Stream) => {
                    Err("- is one archive, of one path of a pod: kubewire cp POD:PATH -".into())
                }
                (Side::Here(_) | Side::Stream, Side::Here(_)) => Err(
                    "source and destination are both on this machine: write what is in a pod as \
                         POD:PATH"
                        .into(),
                ),
            };
            bar.finish();
            let copied = copied?;
            for left_out in &copied.left_out {
                note!("left out: {left_out}");
                code = 1;
            }
            if !copied.not_kept.is_empty() && !self.quiet {
                let lost: Vec<_> = copied.not_kept.iter().map(ToString::to_string).collect();
                let (name, lost) = (shown(source), lost.join(", "));
                note!("{name}: not kept, which the container cannot: {lost}");
            }
            if !copied.compared && !self.quiet {
                let name = shown(source);
                note!("{name}: not compared, which takes xargs and sha256sum or cksum there");
            }
            tracing::info!(
                files = copied.files,
                bytes = copied.bytes,
                compared = copied.compared,
                "copied"
            );
        }
        Ok(code)
    }

    /// Finds each pod once, and what patterns match.
    async fn sides(&self, client: &Client) -> Result<Vec<Side<Target>>, Failure> {
        let mut targets = HashMap::<_, Target>::new();
        let mut sides = Vec::new();
        for (at, place) in self.paths.iter().enumerate() {
            let (pod, path) = match place {
                Place::Stream => {
                    sides.push(Side::Stream);
                    continue;
                }
                Place::Here(path) => {
                    sides.push(Side::Here(path.clone()));
                    continue;
                }
                Place::There((namespace, pod), path) => {
                    let namespace = namespace.as_deref().unwrap_or(client.namespace());
                    ((namespace, &**pod), path)
                }
            };
            let target = match targets.entry(pod) {
                Entry::Occupied(known) => known.get().clone(),
                Entry::Vacant(new) => new.insert(self.target(client, pod).await).clone(),
            };
            let is_last = at + 1 == self.paths.len();
            if is_last || !path.contains(['*', '?', '[']) {
                sides.push(Side::There(target, path.clone()));
                continue;
            }
            let container = target.container.as_deref();
            let paths = target.pod.matching(container, path).await?;
            let paths = paths.into_iter();
            sides.extend(paths.map(|path| Side::There(target.clone(), path)));
        }
        Ok(sides)
    }

    async fn target(&self, client: &Client, (namespace, pod): (&str, &str)) -> Target {
        let pod = client.pod(namespace, pod);
        let mut container = target::named(self.container.as_ref()).cloned();
        if container.is_none() {
            // Who may not read pods is served in the container that the server takes.
            let all = pod.containers();
            let time = self.timeout.unwrap_or(Duration::MAX);
            let all = tokio::time::timeout(time, all).await;
            let all = all.unwrap_or(Ok(Vec::new())).unwrap_or_default();
            let default = target::default_container(&all, self.quiet);
            container = default.map(|one| one.name.clone());
        }
        Target { pod, container }
    }

    async fn to(
        &self,
        target: &Target,
        source: &Path,
        path: &str,
        progress: &Progress,
    ) -> Result<Copied, Failure> {
        // As it is called, even if it is given as `.`.
        let source = match source.file_name() {
            Some(_) => source.to_owned(),
            None => fs::canonicalize(source).local(source.display())?,
        };
        let copy = target.pod.copy_to(&source, path).progress(progress);
        Ok(options!(self, target, copy).run().await?)
    }

    async fn from(
        &self,
        target: &Target,
        path: &str,
        destination: &Path,
        several: bool,
        progress: &Progress,
    ) -> Result<Copied, Failure> {
        let is_there = destination.is_dir();
        if several && !is_there {
            let shown = destination.display();
            if destination.exists() {
                bail!("{shown} is a file, and several copies go into a directory");
            }
            bail!(
                "there is no directory {shown}, and several copies go into one: create it first, with \
                 mkdir"
            );
        }
        let into = is_there && (several || !target.is_directory(path).await?);
        let destination = match fs::canonicalize(destination) {
            Ok(destination) if into => destination.join(""),
            // As it is called, even if it is given as `.`.
            Ok(destination) => destination,
            Err(_) => destination.to_owned(),
        };
        let copy = target.pod.copy_from(path, destination).progress(progress);
        Ok(options!(self, target, copy).run().await?)
    }

    async fn between(
        &self,
        from: &Target,
        source: &str,
        to: &Target,
        path: &str,
        progress: &Progress,
    ) -> Result<Copied, Failure> {
        let copy = from.pod.copy_between(source, &to.pod, path);
        let copy = copy
            .progress(progress)
            .set(to.container.as_ref(), CopyBetween::to_container);
        Ok(options!(self, from, copy).run().await?)
    }

    /// An archive through a standard stream.
    async fn stream(&self, exec: Exec) -> Result<u8, Failure> {
        let exec = exec.stderr(Stdio::inherit());
        let exec = exec.set(self.timeout, Exec::timeout);
        let status = exec.spawn().await?.wait().await?;
        Ok(exit_code(code(&status)))
    }
}

impl Target {
    fn of(&self, exec: Exec) -> Exec {
        exec.set(self.container.as_ref(), Exec::container)
    }

    /// The path as the library takes it: with a slash behind it, if it is a directory.
    async fn inside(&self, path: &str, several: bool) -> Result<String, Failure> {
        match self.is_directory(path).await? {
            true => Ok(format!("{path}/")),
            false if several => {
                let pod = self.pod.name();
                bail!(
                    "{pod}:{path} is no directory, and several copies go into one: create it first, \
                     with kubewire exec {pod} -- mkdir -p {path}"
                )
            }
            false => Ok(path.to_owned()),
        }
    }

    /// Whether a path is a directory; not if the container cannot tell.
    async fn is_directory(&self, path: &str) -> kubewire::Result<bool> {
        // A name that begins with a dash is no option.
        let path = match path.starts_with('/') {
            true => path.to_owned(),
            false => format!("./{path}"),
        };
        // A shell can tell without a program.
        let commands = [
            &["sh", "-c", "[ -d \"$1\" ]", "sh", &path][..],
            &["test", "-d", &path],
        ];
        for command in commands {
            match self
                .of(self.pod.exec(command.iter().copied()))
                .status()
                .await
            {
                Ok(status) => return Ok(status.success()),
                Err(Error::Api(refusal)) if matches!(refusal.hint, Some(Hint::Program(_))) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }
}

/// As the user knows it.
fn shown(side: &Side<Target>) -> String {
    match side {
        Side::Stream => "-".to_owned(),
        Side::Here(path) => path.display().to_string(),
        Side::There(target, path) => format!("{}:{path}", target.pod.name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_told_from_a_path_as_kubectl_tells_it() {
        let there = |namespace: Option<&str>, pod: &str, path: &str| {
            let pod = (namespace.map(str::to_owned), pod.to_owned());
            Place::There(pod, path.to_owned())
        };
        for (text, expected) in [
            ("web-0:/a", there(None, "web-0", "/a")),
            ("other/web-0:a:b", there(Some("other"), "web-0", "a:b")),
            ("/tmp/a", Place::Here("/tmp/a".into())),
            ("./a:b", Place::Here("./a:b".into())),
            ("/a:b", Place::Here("/a:b".into())),
            ("-", Place::Stream),
        ] {
            assert_eq!(place(text).as_ref(), Ok(&expected), "{text}");
        }
        for text in ["", ":a", "web-0:", "a/b/c:d", "/web-0:", "other/:a"] {
            let accepted = place(text).is_ok_and(|place| matches!(place, Place::There(..)));
            assert!(!accepted, "{text}");
        }
    }
}
