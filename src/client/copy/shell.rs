//! What is said to a shell in the container: in flow names, out come words that it takes as they
//! are, and the scripts that take them.
//!
//! The scripts are for any POSIX shell. A name is an argument of nothing but letters, digits and
//! backslashes, which `printf %b` makes the name of: the API carries an argument as text, and a
//! name need be none.

use std::fmt::Write as _;

/// The variable `n` from the argument `$1`. What a substitution ends with, it loses if that is
/// line feeds; so there is a letter behind them.
macro_rules! named {
    ($script:expr) => {
        concat!("n=$(printf %bx \"$1\"); n=${n%x}; ", $script)
    };
}

/// A name for `printf %b`.
pub(super) fn escaped(name: &[u8]) -> String {
    name.iter().fold(String::new(), |mut word, byte| {
        // Writing to a String does not fail.
        let _ = match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'/' => {
                word.write_char(char::from(*byte))
            }
            byte => write!(word, "\\0{byte:03o}"),
        };
        word
    })
}

/// A name as a word of a script: in single quotes nothing but they have a meaning.
pub(super) fn quoted(name: &[u8]) -> Vec<u8> {
    let parts: Vec<_> = name.split(|byte| *byte == b'\'').collect();
    [b"'", &parts.join(&b"'\\''"[..])[..], b"'"].concat()
}

/// Which programs there are, whether the destination `$1` is a directory, and where `$2` leads.
pub(super) const LOOK: &str = named!(
    r#"for p in tar cat mv mkdir rm chmod chown touch ln readlink find stat head tail wc dd sha256sum cksum xargs; do
  command -v "$p" >/dev/null 2>&1 && echo "$p"
done
case $(tar --version 2>/dev/null </dev/null) in *"GNU tar"*) echo gnu ;; esac
tar -X /dev/null -c -f /dev/null -C / dev/null >/dev/null 2>&1 </dev/null && echo lists
[ -d "$n" ] && echo directory
echo ."#
);

/// Runs a program with the stage `$2` in `$1`, which is made if it is not there.
///
/// The last word of each program that runs there has the stage's name in it: so it can be told
/// from others that have its number later.
pub(super) const IN_STAGE: &str = r#"cd -- "$1" && { [ -d "./$2" ] || mkdir -m 700 "./$2"; } && cd "./$2" &&
{ [ -d tree ] || mkdir tree; } && : >none && echo $$ >pid && shift 2 && exec "$@""#;

/// Appends stdin to the file `$1` in the stage `$3` in `$2`.
///
/// Here and below `cat` holds the output of the exec: containerd ends the input of a process whose
/// output has ended (containerd#13934).
pub(super) const APPEND: &str = named!(
    r#"cd -- "$2" && cd "./$3/tree" && echo $$ >../pid && exec cat "../../$3/none" - 3>&1 >>"$n""#
);

/// Writes stdin to the file `$1` in the stage `$3` in `$2`.
pub(super) const WRITE: &str = named!(r#"cd -- "$2" && cd "./$3/tree" && exec cat 3>&1 >"$n""#);

/// Writes stdin to the file `$1` itself.
pub(super) const WRITE_THERE: &str = named!(r#"exec cat 3>&1 >"$n""#);

/// Ends what still runs for the stage `$2` in `$1`, and says whether it is there.
pub(super) const QUIET: &str = r#"cd -- "$1" && cd "./$2" 2>/dev/null || { echo gone; exit 0; }
p=; [ -f pid ] && read -r p <pid
ours() { case $(cat "/proc/$p/cmdline" 2>/dev/null) in *"$stage"*) return 0 ;; esac; return 1; }
stage=$2
case $p in '' | *[!0-9]*) ;; *)
  i=0; while ours && [ $i -lt 2000 ]; do kill -9 "$p" 2>/dev/null; i=$((i + 1)); done ;;
esac
echo here"#;

/// Says whether what ran for the stage `$2` in `$1` has gone, where processes can be seen.
pub(super) const GONE: &str = r#"cd -- "$1" && cd "./$2" && read -r p <pid && [ -r /proc/$$/cmdline ] || exit 0
case $(cat "/proc/$p/cmdline" 2>/dev/null) in *"$2"*) ;; *) echo gone ;; esac"#;

/// The bytes of the file `$1`, from `$2`.
pub(super) const SIZE: &str = named!(r#"cd -- "$2" && wc -c <"$n""#);

macro_rules! beginning {
    () => {
        named!(r#"head -c "$2" <"$n" | "$3""#)
    };
}

/// The digest of the first `$2` bytes of the file `$1`, by the program `$3`.
pub(super) const BEGINNING: &str = beginning!();

/// The same, and what follows from byte `$4` on, which is counted from 1.
pub(super) const REST: &str = concat!(beginning!(), r#" && exec tail -c "+$4" <"$n""#);

/// Ends all that an exec has started: container runtimes make it a process group. Who waits for
/// others lets them end first, for the first process of a container may never wait for any. What
/// comes to a program that begins just then is taken as its shell takes it, and lost; so it comes
/// twice.
macro_rules! end_all {
    () => {
        r#"read -r _ _ _ _ g _ <"/proc/$$/stat"
[ "$g" = $$ ] && { kill -s TERM -- "-$$"; sleep 1; kill -s TERM -- "-$$"; }"#
    };
}

/// Runs a program that reads the first `$1` bytes of stdin, and ends it when stdin ends. Nothing
/// else tells that the client has gone: the runtime goes on to take what is written
/// (kubernetes/kubernetes#89031). Who passes the bytes on says its number first, to be ended.
pub(super) const WATCHED: &str = concat!(
    r#"exec 3<&0; c=$1; shift; trap : TERM
[ "$c" = 0 ] || command -v head >/dev/null 2>&1 || exit 127
{ read -r me _ </proc/self/stat; echo "$me"
  [ "$c" = 0 ] || head -c "$c"
  exec >/dev/null 2>&1; trap : TERM; read -r _; trap : PIPE
  "#,
    end_all!(),
    r#"
} <&3 | {
  exec 3<&-; trap : TERM; read -r w
  "$@"; s=$?
  kill -s PIPE "$w" 2>/dev/null; exit "$s"
}"#
);

/// The digests by `$1` of files whose names come a line each, as they come: the next only when there is a
/// line for the one before, empty if it cannot be read. An empty name is the end; where there is
/// none the client has gone.
pub(super) const DIGESTS: &str = concat!(
    r#"while read -r n; do
  [ "$n" ] || { wait; exit 0; }
  { trap : TERM; n=$(printf %bx "$n"); "$1" "${n%x}" || echo; } </dev/null &
done
exec >/dev/null 2>&1; trap : TERM
"#,
    end_all!(),
    "; wait"
);

/// Gives what is in the stage `$3` in `$2` its name `$1`, and removes the stage.
///
/// A directory that is there already keeps what else is in it; so one `mv` has what is new in a
/// directory, and only where that is more than the system takes at once there is one for each.
pub(super) const COMMIT: &str = named!(
    r#"d=$2 stage=$3
case $d in /*) ;; *) d=./$d ;; esac
case $n in /*) ;; *) n=./$n ;; esac
fail() { printf '%s: %s\n' "$1" "$2" >&2; exit 1; }
replaceable() {
  [ -f "$1" ] || [ -h "$1" ] || [ ! -e "$1" ] ||
    fail "$1" "a device, a pipe or a socket is there, and is not replaced"
}
move() {
  t=$1; shift
  [ -e "$1" ] || [ -h "$1" ] || return 0
  mv -f -- "$@" "$t"/ 2>/dev/null && return 0
  for e do
    [ -e "$e" ] || [ -h "$e" ] || continue
    mv -f -- "$e" "$t"/ || exit 1
  done
}
merge() {
  for e in "$1"/* "$1"/.[!.]* "$1"/..?*; do
    [ -e "$e" ] || [ -h "$e" ] || continue
    o=$2/${e##*/}
    if [ -d "$e" ] && [ ! -h "$e" ]; then
      if [ -h "$o" ]; then rm -f -- "$o" || exit 1
      elif [ -d "$o" ]; then merge "$e" "$o" || exit 1
      elif [ -e "$o" ]; then fail "$o" "it is no directory, and a directory was to take its place"
      fi
    elif [ -d "$o" ] && [ ! -h "$o" ]; then fail "$o" "it is a directory, and a file was to take its place"
    else replaceable "$o"
    fi
  done
  move "$2" "$1"/*
  move "$2" "$1"/.[!.]*
  move "$2" "$1"/..?*
  rm -rf -- "$1"
}
echo $$ >"$d/$stage/pid" || exit 1
from=$d/$stage/tree/it
if [ -d "$from" ] && [ ! -h "$from" ]; then
  if [ -d "$n" ]; then chmod u+rwx "$from" && merge "$from" "$n" || exit 1
  elif [ -e "$n" ]; then fail "$n" "it is no directory, and a directory was to take its place"
  else [ ! -h "$n" ] || rm -f -- "$n"; mv -f -- "$from" "$n" || exit 1
  fi
elif [ -d "$n" ]; then fail "$n" "it is a directory, and a file was to take its place"
else replaceable "$n" && mv -f -- "$from" "$n" || exit 1
fi
rm -rf -- "$d/$stage""#
);

/// Sends the file `$1`.
pub(super) const READ: &str = named!(r#"exec cat <"$n""#);

/// The paths that the pattern `$1` matches, with a zero behind each.
pub(super) const MATCH: &str = r#"p=$1 IFS=
if [ -e "$p" ] || [ -h "$p" ]; then set -- "$p"; else set -- $p; fi
for f do printf '%s\0' "$f"; done"#;

/// Sends all that is at `$1`. Each header begins with a kind and attributes, has the name in the
/// next line, and ends as contents do, with the mark `$2`. Of the first `$3` there are headers
/// alone.
///
/// What `ls` says is for people, so attributes are asked of `stat`, and without it what the shell
/// can test of them.
pub(super) const WALK: &str = named!(
    r#"mark=$2 skip=$3 k=0
command -v stat >/dev/null 2>&1 && stat=y || stat=
command -v readlink >/dev/null 2>&1 && readlink=y || readlink=
one() {
  k=$((k + 1)) a=
  if [ -h "$1" ]; then kind=l
  elif [ -d "$1" ]; then kind=d
  elif [ -f "$1" ]; then kind=f
  else kind=s
  fi
  if [ $kind = f ] && [ $k -le $skip ]; then kind=k; fi
  if [ $kind = l ]; then [ $readlink ] || kind=n
  elif [ $stat ]; then a=$(stat -c '%a %Y %s %h %d:%i' -- "$1") || a=
  elif [ $kind = f ] && [ -x "$1" ]; then a=755
  fi
  printf '%s %s
%s%s' $kind "$a" "$2" "$mark"
  case $kind in
  f) cat <"$1" || exit 1; printf %s "$mark" ;;
  l) readlink "$1" || exit 1; printf %s "$mark" ;;
  d) for e in "$1"/* "$1"/.[!.]* "$1"/..?*; do
    [ -e "$e" ] || [ -h "$e" ] || continue
    one "$e" "${e#"$root"}"
  done ;;
  esac
}
if [ ! -e "$n" ] && [ ! -h "$n" ]; then printf '%s: No such file or directory
' "$n" >&2; exit 1; fi
root=$n/
one "$n" ""
printf 'e 
%s' "$mark""#
);

/// Removes the stage `$2` in `$1`.
pub(super) const REMOVE: &str = r#"cd -- "$1" && chmod -R u+rwx "./$2" && rm -rf "./$2""#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_the_name_that_it_is() {
        let name = b"-a b'c\\d\n\xff%s$x`y`\n";
        assert_eq!(escaped(b"a/b-c_d.e"), "a/b-c_d.e");
        assert_eq!(escaped(b"\n\xff%"), "\\0012\\0377\\0045");
        assert_eq!(quoted(b"it's"), b"'it'\\''s'");
        let output = std::process::Command::new("sh")
            .args(["-c", named!("printf %s \"$n\""), "sh", &escaped(name)])
            .output()
            .expect("there is a shell");
        assert_eq!(output.stdout, name);
    }
}
