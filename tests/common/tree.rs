//! A tree of a given size for copies: files of many sizes, odd names, holes and links.

#![allow(dead_code, reason = "each test uses its part")]

use std::{
    fs::{self, File},
    io::{Seek as _, SeekFrom, Write as _},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

/// Makes so many files with so many bytes together, a hundred in each directory.
pub(crate) fn plant(root: &Path, files: u64, bytes: u64) -> std::io::Result<()> {
    make(root, files, bytes, true)
}

/// The same without odd names, links and holes, which not every program copies.
pub(crate) fn plant_plain(root: &Path, files: u64, bytes: u64) -> std::io::Result<()> {
    make(root, files, bytes, false)
}

fn make(root: &Path, files: u64, bytes: u64, is_odd: bool) -> std::io::Result<()> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    // A quarter is in a few large files, the rest in many small ones.
    let large = (files / 1000).max(2);
    let each = bytes / 4 / large;
    let small = bytes * 3 / 4 / files.max(1);
    for at in 0..files {
        let directory = root.join(format!("d{}", at / 100));
        if at % 100 == 0 {
            fs::create_dir_all(&directory)?;
        }
        let odd = [
            "",
            " with space",
            "\nline",
            "'quote\"",
            "-\u{e4}\\",
            "\u{1b}[31m",
        ];
        let odd = odd
            .get((at % 97) as usize)
            .filter(|_| is_odd)
            .unwrap_or(&"");
        let path = directory.join(format!("f{at}{odd}"));
        let before = directory.join(format!("f{}", at.saturating_sub(1)));
        match at % 100 {
            98 if is_odd && before.exists() => fs::hard_link(before, path)?,
            99 if is_odd => symlink("../d0/f50", path)?,
            _ => {
                let size = if at < large {
                    each
                } else {
                    random() % (2 * small + 1)
                };
                let mut file = File::create(path)?;
                if at % 100 == 97 && is_odd {
                    file.seek(SeekFrom::Start(1 << 20))?;
                }
                let mut left = size;
                while left > 0 {
                    let part = left.min(64 << 10) as usize;
                    let words = part.div_ceil(8);
                    let bytes: Vec<u8> = (0..words).flat_map(|_| random().to_le_bytes()).collect();
                    file.write_all(&bytes[..part])?;
                    left -= part as u64;
                }
            }
        }
    }
    Ok(())
}

/// One digest of all names, kinds, modes, targets and contents.
pub(crate) fn digest(root: &Path) -> std::io::Result<String> {
    use sha2::{Digest as _, Sha256};
    use std::os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _};

    let mut all = Sha256::new();
    let mut left = vec![PathBuf::new()];
    while let Some(below) = left.pop() {
        let path = root.join(&below);
        let metadata = fs::symlink_metadata(&path)?;
        all.update(below.as_os_str().as_bytes());
        all.update(metadata.mode().to_le_bytes());
        if metadata.is_dir() {
            let children: Result<Vec<_>, _> = fs::read_dir(&path)?.collect();
            let mut children: Vec<_> = children?
                .iter()
                .map(|it| below.join(it.file_name()))
                .collect();
            children.sort();
            left.extend(children);
        } else if metadata.is_symlink() {
            all.update(fs::read_link(&path)?.as_os_str().as_bytes());
        } else {
            all.update(metadata.nlink().to_le_bytes());
            all.update(fs::read(&path)?);
        }
    }
    let digest = all.finalize();
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Bytes on the disk below a path.
pub(crate) fn on_disk(root: &Path) -> std::io::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let (mut total, mut left) = (0, vec![root.to_owned()]);
    while let Some(path) = left.pop() {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            total += metadata.blocks() * 512;
            if metadata.is_dir() {
                left.push(entry.path());
            }
        }
    }
    Ok(total)
}
