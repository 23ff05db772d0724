//! Copies to a container that were cut: in flows what was sent, out comes what is there of it.
//!
//! A file that is there whole, as its digest says, is not sent again. Of one that is not, the
//! beginning is compared, and the rest sent behind it.

use std::{
    fs::File,
    io::{self, Read as _},
    sync::Arc,
};

use super::{
    Record, bytes_path,
    holes::segments,
    lock,
    pack::{Digesting, Filled, failure, joined as joined_path},
    side::thread,
    sums::Digest,
    to::Work,
    verify::digests,
};
use crate::Result;

/// Fewer bytes than these are sent again.
const WORTH: u64 = 64 << 10;

pub(super) async fn resume(work: &mut Work) -> Result<()> {
    let Some(stage) = &work.stage else {
        return Ok(());
    };
    let current = lock(&work.packed).current.take().map(Arc::from);
    let current = current.filter(|it| !work.sent.contains_key(it));
    let known = work.sent.values().map(|it| it.name.clone());
    let names = known.chain(current).collect();
    let found = digests(&work.side, &stage.path(), names).await?;
    let (mut files, mut bytes) = (0, 0);
    let mut begun = Vec::new();
    let mut done = Vec::new();
    for (name, digest) in found.unwrap_or_default() {
        match (work.sent.get(&name), digest) {
            (Some(record), Some(digest)) if record.digest == digest => {
                (files, bytes) = (files + 1, bytes + record.size);
                done.push((name, record.clone()));
            }
            (_, Some(digest)) => begun.push((name, digest)),
            (_, None) => {}
        }
    }
    work.plan.progress.start(files, bytes);
    lock(&work.packed).done.extend(done);
    if work.is_local && work.tools.can_append() {
        for (name, digest) in begun {
            if let Some(record) = append(work, &name, digest).await? {
                work.sent.insert(name.clone(), record.clone());
                lock(&work.packed).done.insert(name, record);
            }
        }
    }
    Ok(())
}

/// Sends the rest of a file whose beginning is there. `None` if it is another beginning.
async fn append(work: &mut Work, name: &[u8], digest: Digest) -> Result<Option<Record>> {
    let (Some(stage), archived) = (&work.stage, work.archived(name)) else {
        return Ok(None);
    };
    let there = stage.size(&archived).await?;
    if there < WORTH {
        return Ok(None);
    }
    let path = joined_path(&work.plan.source, &bytes_path(name));
    let plan = work.plan.clone();
    let opened = thread(&work.plan.progress, move || {
        let failed = failure(&path);
        let file = File::open(&path).map_err(&failed)?;
        let metadata = file.metadata().map_err(&failed)?;
        let size = metadata.len();
        let segments = segments(&file, size);
        let mut front = Digesting::new((&file).take(there), plan.sum, &plan.progress);
        io::copy(&mut front, &mut io::sink()).map_err(&failed)?;
        let is_beginning = front.read == there && front.digest.clone().finish() == digest;
        let digest = front.digest;
        Ok(is_beginning.then(|| (file, digest, size, segments, plan.header(&metadata))))
    });
    let Some((file, digest, size, segments, header)) = opened.await? else {
        return Ok(None);
    };
    let exec = stage.append(&archived);
    let plan = work.plan.clone();
    let job = move |mut to: super::pipe::PipeWriter| {
        let mut rest = Digesting::new(file.take(size - there), plan.sum, &plan.progress);
        rest.digest = digest;
        rest.pass(&mut to).map_err(failure(&plan.source))
    };
    let progress = &work.plan.progress;
    let sending = work.side.send(exec, Some(stage), progress, job);
    let (read, digest) = sending.await?;
    work.plan.progress.file();
    work.appended.push((name.to_vec(), header.clone()));
    if let Some(segments) = segments {
        let filled = Filled {
            size,
            segments,
            header,
        };
        lock(&work.packed).filled.insert(name.to_vec(), filled);
    }
    Ok(Some(Record {
        name: name.into(),
        size: there + read,
        digest,
        link: false,
    }))
}
