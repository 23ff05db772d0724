//! A container image made of busybox: in flows the program, out comes a tar file in the form of
//! `docker save`, which `ctr image import` reads.

use std::{io, path::Path, process::Command};

use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use crate::scenarios::hex;

/// Does nothing until it is told to end.
const WAIT: &str = "trap 'exit 0' TERM INT; while :; do sleep 3600 & wait; done";

/// Writes an image named `name` to `file`.
pub(crate) fn write(busybox: &Path, name: &str, file: &Path) -> io::Result<()> {
    let layer = layer(busybox)?;
    let layer_id = hex(Sha256::digest(&layer));
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = serde_json::json!({
        "architecture": architecture,
        "os": "linux",
        "config": {"Cmd": ["/bin/sh", "-c", WAIT], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer_id}")]},
    })
    .to_string();
    let config_file = format!("{}.json", hex(Sha256::digest(&config)));
    let layer_file = format!("{layer_id}/layer.tar");
    let manifest = serde_json::json!([{
        "Config": config_file,
        "RepoTags": [name],
        "Layers": [layer_file],
    }])
    .to_string();

    let mut archive = Builder::new(std::fs::File::create(file)?);
    add(&mut archive, &config_file, 0o644, config.as_bytes())?;
    add(&mut archive, &layer_file, 0o644, &layer)?;
    add(&mut archive, "manifest.json", 0o644, manifest.as_bytes())?;
    archive.finish()
}

/// The one layer: busybox, a link for each of its programs, and what programs expect to find.
fn layer(busybox: &Path) -> io::Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    for directory in ["bin", "tmp", "etc", "proc", "sys", "dev", "root"] {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Directory);
        header.set_mode(if directory == "tmp" { 0o1777 } else { 0o755 });
        header.set_size(0);
        tar.append_data(&mut header, directory, io::empty())?;
    }
    add(&mut tar, "bin/busybox", 0o755, &std::fs::read(busybox)?)?;
    let programs = Command::new(busybox).arg("--list").output()?.stdout;
    for program in String::from_utf8_lossy(&programs).split_whitespace() {
        if program != "busybox" {
            let mut header = Header::new_gnu();
            header.set_entry_type(EntryType::Symlink);
            header.set_size(0);
            header.set_mode(0o777);
            tar.append_link(&mut header, format!("bin/{program}"), "busybox")?;
        }
    }
    add(
        &mut tar,
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\n",
    )?;
    add(&mut tar, "etc/group", 0o644, b"root:x:0:\n")?;
    tar.into_inner()
}

fn add<W: io::Write>(tar: &mut Builder<W>, path: &str, mode: u32, data: &[u8]) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_size(data.len() as u64);
    header.set_mode(mode);
    tar.append_data(&mut header, path, data)
}
