//! What is done to files that are in the container already: in flow their attributes and holes,
//! out come lines of a script, and what they could not do.

use tar::Header;

use super::{NotKept, holes::Segments, pack::Keep, shell::quoted, side::Side, times};
use crate::Result;

/// Bytes that are a hole at least, and where holes begin and end.
const BLOCK: u64 = 32 << 10;

/// More parts than these are not worth a process each.
const PARTS: usize = 256;

/// `make DIRECTORY` and `link TARGET NAME` leave what is there already.
///
/// `dig 'SIZE [FIRST COUNT]...' FILE` keeps only these blocks of a file, and what is between them
/// becomes holes. The file stays the same one, for it may have other names.
const FRONT: &str = r#"dig() {
  f=$2; set -- $1; size=$1; shift; list="$*"
  : >../dig || return 1
  set -- $list
  while [ $# -gt 0 ]; do
    dd if="$f" of=../dig bs=32768 skip="$1" seek="$1" count="$2" conv=notrunc || return 1
    shift 2
  done
  : >"$f" || return 1
  set -- $list
  while [ $# -gt 0 ]; do
    dd if=../dig of="$f" bs=32768 skip="$1" seek="$1" count="$2" conv=notrunc || return 1
    shift 2
  done
  dd if=/dev/null of="$f" bs=1 seek="$size" count=0 && rm -f ../dig
} 2>/dev/null
make() { [ -d "$1" ] || mkdir "$1"; }
link() {
  if [ -h "$2" ]; then rm -f "$2" || return 1; fi
  ln -s -- "$1" "$2"
}
"#;

fn number(field: std::io::Result<u64>) -> u64 {
    field.unwrap_or_default()
}

/// A script that is being written.
#[derive(Debug)]
pub(super) struct Finish {
    script: Vec<u8>,
    is_empty: bool,
}

impl Finish {
    /// It runs in `directory`.
    pub(super) fn new(directory: &[u8]) -> Self {
        let directory = quoted(directory);
        let parts = [b"cd -- ", &directory[..], b" || exit 1\n", FRONT.as_bytes()];
        Self {
            script: parts.concat(),
            is_empty: true,
        }
    }

    /// A program with names, and what is said if it fails.
    pub(super) fn line(&mut self, front: &str, names: &[&[u8]], otherwise: &str) {
        self.is_empty = false;
        self.script.extend_from_slice(front.as_bytes());
        for name in names {
            self.script.push(b' ');
            self.script.extend_from_slice(&quoted(name));
        }
        self.script.extend_from_slice(b" </dev/null || ");
        self.script.extend_from_slice(otherwise.as_bytes());
        self.script.push(b'\n');
    }

    /// The file, or the link itself, gets the owner of the header.
    pub(super) fn owner(&mut self, name: &[u8], header: &Header) {
        let (user, group) = (number(header.uid()), number(header.gid()));
        let front = format!("chown -h {user}:{group}");
        self.line(&front, &[name], "echo owners");
    }

    pub(super) fn attributes(&mut self, name: &[u8], header: &Header, keep: Keep) {
        if keep == Keep::Owners {
            self.owner(name, header);
        }
        let mode = header.mode().unwrap_or(0o644);
        self.line(&format!("chmod {mode:04o}"), &[name], "echo modes");
        let time = times::of_entry(header).unwrap_or_default();
        self.line(&format!("touch -d @{time}"), &[name], "echo times");
    }

    /// The file, all of whose bytes are there, has data only in these parts.
    pub(super) fn dig(&mut self, name: &[u8], size: u64, segments: &Segments) {
        let mut blocks: Vec<(u64, u64)> = Vec::new();
        for (offset, length) in segments {
            let (first, end) = (offset / BLOCK, (offset + length).div_ceil(BLOCK));
            match blocks.last_mut() {
                Some((_, last)) if *last >= first => *last = end.max(*last),
                _ => blocks.push((first, end)),
            }
        }
        if blocks.len() > PARTS {
            self.line("false", &[], "echo holes");
            return;
        }
        let words = blocks
            .iter()
            .map(|(first, end)| format!(" {first} {}", end - first));
        let front = format!("dig '{size}{}'", words.collect::<String>());
        self.line(&front, &[name], "echo holes");
    }

    /// Runs it; gives what could not be done.
    pub(super) async fn run(self, side: &Side) -> Result<Vec<NotKept>> {
        if self.is_empty {
            return Ok(Vec::new());
        }
        let exec = side.exec(["sh"]).input(self.script).require_half_close();
        let said = side.run(exec, "copy to").await?;
        let is_said = |it: &NotKept| {
            let mut lines = said.split(|byte| *byte == b'\n');
            lines.any(|line| line == it.word())
        };
        Ok(NotKept::ALL.into_iter().filter(is_said).collect())
    }
}
