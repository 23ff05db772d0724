//! Files that change while they are copied, and programs in the container that give up.

use std::fs;

use kubewire::Error;

use crate::fixture::{Fixture, Program, Result};

/// All that a container has for copies, with a `tar` that is this script where its first word is
/// `option`.
fn with_tar(option: &str, script: &str) -> Vec<(&'static str, Program<'static>)> {
    let script = format!("[ \"$1\" = {option} ] || exec /usr/bin/tar \"$@\"\n{script}");
    let mut programs = vec![("tar", Program::Script(script))];
    programs.extend(
        [
            ("sh", "/usr/bin/sh"),
            ("cat", "/usr/bin/cat"),
            ("mkdir", "/usr/bin/mkdir"),
            ("mv", "/usr/bin/mv"),
            ("rm", "/usr/bin/rm"),
            ("chmod", "/usr/bin/chmod"),
            ("head", "/usr/bin/head"),
            ("tail", "/usr/bin/tail"),
            ("wc", "/usr/bin/wc"),
            ("sha256sum", "/usr/bin/sha256sum"),
            ("xargs", "/usr/bin/xargs"),
        ]
        .map(|(name, path)| (name, Program::Link(path))),
    );
    programs
}

/// The end of a `tar` of GNU that saw a file change.
const CHANGED: &str = "echo 'tar: ./logs/app.log: file changed as we read it' >&2; exit 1";

#[tokio::test]
async fn a_log_that_grows_is_copied_as_far_as_it_had_come() -> Result {
    // Of the second the whole is compared while it comes.
    for size in [5, 9 << 20] {
        for end in ["exit 0", CHANGED] {
            let disk = tempfile::tempdir()?;
            let log = disk.path().join("logs/app.log");
            let script = format!("/usr/bin/tar \"$@\"; echo more >>{}; {end}", log.display());
            let (fixture, _bin) = Fixture::with_programs(&with_tar("-c", &script)).await?;
            let before = "l".repeat(size);
            fs::create_dir(disk.path().join("logs"))?;
            fs::write(&log, &before)?;
            fs::write(disk.path().join("logs/other"), "other")?;
            let logs = disk.path().join("logs");
            let copy = fixture
                .pod
                .copy_from(logs.to_str().unwrap(), fixture.path("back"));
            let copied = copy.run().await?;
            assert_eq!((copied.files, copied.compared), (2, true));
            assert!(fs::read(fixture.path("back/app.log"))? == before.as_bytes());
            // The other pod gets what has come since, too.
            let logs = logs.to_str().unwrap();
            let there = fixture.remote("there");
            let copy = fixture.pod.copy_between(logs, &fixture.other, &there);
            let copied = copy.run().await?;
            assert_eq!((copied.files, copied.compared), (2, true));
            let more = before + "more\n";
            assert!(fs::read(fixture.path("there/app.log"))? == more.as_bytes());
            assert!(fs::read_to_string(&log)? == more + "more\n");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_file_that_is_written_anew_meanwhile_is_told() -> Result {
    for end in ["exit 0", CHANGED] {
        let disk = tempfile::tempdir()?;
        let (logs, log) = (disk.path().join("logs"), disk.path().join("logs/app.log"));
        let script = format!(
            "/usr/bin/tar \"$@\"; echo longer than before >{}; {end}",
            log.display()
        );
        let (fixture, _bin) = Fixture::with_programs(&with_tar("-c", &script)).await?;
        fs::create_dir(&logs)?;
        fs::write(&log, "before")?;
        let copy = fixture
            .pod
            .copy_from(logs.to_str().unwrap(), fixture.path("back"));
        let error = copy.run().await.unwrap_err();
        let words = "app.log: its 6 bytes are others in the container, where it may have changed";
        assert!(matches!(error, Error::Peer(_)), "{error:?}");
        assert!(error.to_string().contains(words), "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn a_program_that_complains_and_takes_nothing_more_is_given_up() -> Result {
    let script = "echo 'tar: big: No space left on device' >&2; exec /usr/bin/sleep 100000";
    let (fixture, _bin) = Fixture::with_programs(&with_tar("-x", script)).await?;
    // One that is stuck on the way, and one that fits into the pipes.
    let given_up = async |name: &str, size| {
        fs::write(fixture.path(name), vec![7; size])?;
        let there = fixture.remote(&format!("{name} there"));
        let copy = fixture.pod.copy_to(fixture.path(name), there);
        let error = copy.run().await.unwrap_err();
        assert!(matches!(error, Error::Peer(_)), "{error:?}");
        assert_eq!(
            error.to_string(),
            "copy to pod default/web-0: tar: big: No space left on device, and it takes no more input"
        );
        assert!(!fixture.path(&format!("{name} there")).exists());
        Ok(())
    };
    tokio::try_join!(given_up("large", 64 << 20), given_up("small", 1000)).map(drop)
}

/// A program that is killed, whose end nobody tells while something holds its output: containerd
/// does so while input is left.
#[tokio::test]
async fn a_program_that_has_gone_is_given_up_and_a_slow_one_is_not() -> Result {
    let copy = async |script: &str| {
        let (fixture, _bin) = Fixture::with_programs(&with_tar("-x", script)).await?;
        fs::write(fixture.path("large"), vec![7; 64 << 20])?;
        let there = fixture.remote("there");
        let copy = fixture.pod.copy_to(fixture.path("large"), there);
        let copied = copy.run().await;
        assert_eq!(copied.is_ok(), fixture.path("there").exists());
        Ok(copied)
    };
    let gone = copy("sleep 100000 <&0 & kill -KILL $$");
    let slow = copy("sleep 50; exec /usr/bin/tar \"$@\"");
    let (gone, slow): (Result<_>, Result<_>) = tokio::join!(gone, slow);
    assert!(slow??.compared);
    assert_eq!(
        gone?.unwrap_err().to_string(),
        "copy to pod default/web-0: the program that took it has ended, and nobody says how"
    );
    Ok(())
}
