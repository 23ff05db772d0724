//! Copies to a container that has a shell and `cat`: in flow files, out comes an exec for each, a
//! few at a time, for `cat` reads to the end of its input.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read as _},
    path::PathBuf,
    sync::Arc,
};

use tar::Header;
use tokio::task::JoinSet;

use super::{
    LeftOut, NotKept, Reason, Record, below,
    finish::Finish,
    holes::segments,
    lock, name_bytes,
    pack::{self, Digesting, Filled, Keep, Plan, failure},
    pipe::PipeWriter,
    progress::Progress,
    shell::{READ, WRITE_THERE, escaped},
    side::{Side, thread},
    to::Work,
    unpack::wrong,
};
use crate::{
    Result,
    client::Exec,
    error::{CallerError, panic::caught_in},
};

const AT_ONCE: usize = 8;

/// Who panicked, in an error.
const TASK: &str = "a task of the copy";

struct Item {
    below: PathBuf,
    kind: Kind,
    header: Header,
}

enum Kind {
    Directory,
    Link(PathBuf),
    /// Whether it has other names too.
    File(bool),
}

/// All that is to be copied, parents before children.
fn survey(plan: &Plan, left_out: &mut Vec<LeftOut>) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    let mut left = vec![PathBuf::new()];
    while let Some(below) = left.pop() {
        if plan.exclude.has(&name_bytes(&below)) {
            continue;
        }
        let path = pack::joined(&plan.source, &below);
        let shown = path.clone();
        let failed = failure(&shown);
        let metadata = fs::symlink_metadata(&path).map_err(&failed)?;
        let kind = metadata.file_type();
        let kind = if kind.is_dir() {
            let children = pack::children(&path).map_err(&failed)?;
            left.extend(children.into_iter().map(|it| below.join(it)));
            Kind::Directory
        } else if kind.is_symlink() {
            Kind::Link(fs::read_link(&path).map_err(&failed)?)
        } else if kind.is_file() {
            Kind::File(pack::several_names(&metadata).is_some())
        } else {
            let reason = Reason::Special;
            left_out.push(LeftOut { path, reason });
            continue;
        };
        let header = plan.header(&metadata);
        items.push(Item {
            below,
            kind,
            header,
        });
    }
    Ok(items)
}

pub(super) async fn send(work: &mut Work) -> Result<()> {
    let (plan, packed) = (work.plan.clone(), work.packed.clone());
    let looking = thread(&plan.clone().progress, move || {
        let mut packed = lock(&packed);
        packed.begin();
        survey(&plan, &mut packed.left_out)
    });
    let items = looking.await?;
    if let Some(stage) = &mut work.stage {
        let exec = stage.exec(&["sh", "-c", "exit 0"]);
        work.side.run(exec, "copy to").await?;
    }
    let mut files = structure(work, items).await?;
    let done = std::mem::take(&mut lock(&work.packed).done);
    let mut records: HashMap<Arc<[u8]>, _> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut order = Vec::new();
    let mut outcome = Ok(());
    files.reverse();
    loop {
        while tasks.len() < AT_ONCE
            && outcome.is_ok()
            && let Some(item) = files.pop()
        {
            let name: Arc<[u8]> = name_bytes(&item.below).into();
            order.push(name.clone());
            work.appended.push((name.to_vec(), item.header.clone()));
            match done.get(&name) {
                Some(record) => drop(records.insert(name, record.clone())),
                None => {
                    let exec = writer(work, &name);
                    let (side, plan) = (work.side.clone(), work.plan.clone());
                    tasks.spawn(caught_in(TASK, file(side, exec, plan, item)));
                }
            }
        }
        match tasks.join_next().await {
            None => break,
            Some(Ok(Ok((record, filled)))) => {
                work.sent.insert(record.name.clone(), record.clone());
                if let Some(filled) = filled {
                    lock(&work.packed)
                        .filled
                        .insert(record.name.to_vec(), filled);
                }
                records.insert(record.name.clone(), record);
            }
            // The first failure counts; the others are let end.
            Some(Ok(Err(error))) => outcome = outcome.and(Err(error)),
            Some(Err(_)) => outcome = outcome.and(Err(CallerError::Killed.into())),
        }
    }
    outcome?;
    if work.stage.is_none() && !lock(&work.packed).filled.is_empty() {
        lock(&work.packed).filled.clear();
        work.lost(vec![NotKept::Holes]);
    }
    let mut packed = lock(&work.packed);
    packed.records = order
        .iter()
        .filter_map(|name| records.remove(name))
        .collect();
    Ok(())
}

/// Makes directories and links; gives the files.
async fn structure(work: &mut Work, items: Vec<Item>) -> Result<Vec<Item>> {
    let mut files = Vec::new();
    let mut finish = Finish::new(&work.inside());
    let mut lost = Vec::new();
    for item in items {
        let name = work.archived(&name_bytes(&item.below));
        match &item.kind {
            Kind::Directory => {
                finish.line("make", &[&name], "exit 1");
                lock(&work.packed)
                    .directories
                    .push((item.below, item.header));
            }
            Kind::Link(target) if work.tools.has("ln") => {
                finish.line("link", &[&name_bytes(target), &name], "exit 1");
                if work.plan.keep == Keep::Owners {
                    finish.owner(&name, &item.header);
                }
            }
            Kind::Link(_) => lock(&work.packed).left_out.push(LeftOut {
                path: pack::joined(&work.plan.source, &item.below),
                reason: Reason::Lacks { program: "ln" },
            }),
            Kind::File(has_more_names) => {
                if *has_more_names {
                    lost.push(NotKept::HardLinks);
                }
                files.push(item);
            }
        }
    }
    // Children before parents, when they get their attributes.
    lock(&work.packed).directories.reverse();
    work.lost(lost);
    let lost = finish.run(&work.side).await?;
    work.lost(lost);
    Ok(files)
}

fn writer(work: &Work, name: &[u8]) -> Exec {
    let archived = work.archived(name);
    match &work.stage {
        Some(stage) => stage.write(&archived),
        None => {
            let path = below(&work.inside(), &archived);
            work.side.script(WRITE_THERE, [&escaped(&path)[..]])
        }
    }
}

async fn file(
    side: Side,
    exec: Exec,
    plan: Arc<Plan>,
    item: Item,
) -> Result<(Record, Option<Filled>)> {
    let progress = plan.progress.clone();
    let job = move |mut to: PipeWriter| {
        let path = pack::joined(&plan.source, &item.below);
        let failed = failure(&path);
        let file = File::open(&path).map_err(&failed)?;
        let size = file.metadata().map_err(&failed)?.len();
        let segments = segments(&file, size);
        let contents = Digesting::new(file.take(size), plan.sum, &plan.progress);
        let (read, digest) = contents.pass(&mut to).map_err(&failed)?;
        let record = Record {
            name: name_bytes(&item.below).into(),
            size: read,
            digest,
            link: false,
        };
        let filled = segments.map(|segments| Filled {
            size,
            segments,
            header: item.header,
        });
        Ok((record, filled))
    };
    let sent = side.send(exec, None, &progress, job).await?;
    progress.file();
    Ok(sent)
}

pub(super) async fn read_back(work: &Work, place: &[u8], records: Vec<Record>) -> Result<()> {
    let mut tasks = JoinSet::new();
    let mut records = records.into_iter();
    loop {
        while tasks.len() < AT_ONCE
            && let Some(record) = records.next()
        {
            let path = below(place, &record.name);
            let exec = work.side.reading(READ, [&escaped(&path)[..]]);
            let (side, shown, sum) = (work.side.clone(), work.shown(), work.plan.sum);
            tasks.spawn(caught_in(TASK, async move {
                let path = record.shown(&shown);
                let progress = Progress::default();
                let job = move |mut input| {
                    let progress = Progress::default();
                    let contents = Digesting::new(&mut input, sum, &progress);
                    let (there, digest) = contents.pass(&mut io::sink()).map_err(failure(&path))?;
                    let sent = record.size;
                    match (there, digest) == (sent, record.digest) {
                        true => Ok(()),
                        false => Err(wrong(
                            &path,
                            format!("{sent} bytes were sent, {there} are there"),
                        )),
                    }
                };
                side.receive(exec, &progress, job).await
            }));
        }
        match tasks.join_next().await {
            None => return Ok(()),
            Some(Ok(done)) => done?,
            Some(Err(_)) => return Err(CallerError::Killed.into()),
        }
    }
}
