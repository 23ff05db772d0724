//! Copies whose connections are cut, at points that a seed chooses, and that go on.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use kubewire::{
    Client, Error, Pod,
    copy::Progress,
    error::CallerError,
    testing::{ApiServer, Fault},
};

#[cfg(target_os = "linux")]
use crate::soon::soon;
use crate::{
    cutter::Cutter,
    fixture::{
        Fixture, NEEDED, Result, assert_same, busybox, noise, of_system, plant, survey, with_cksum,
    },
};

/// A pod to which connections are cut.
fn cut_off(server: &ApiServer, name: &str, cutter: &Cutter) -> Result<Pod> {
    let config = cutter.on(server.config());
    Ok(Client::new(&config)?.pod("default", name))
}

/// Gaps between cuts, of `most` bytes at most.
fn gaps(seed: u64, most: u64) -> impl Iterator<Item = u64> {
    let bytes = noise(seed, 4096);
    let numbers = bytes
        .chunks(4)
        .map(|it| u32::from_le_bytes(it.try_into().unwrap()));
    let numbers: Vec<_> = numbers.map(|it| u64::from(it) % most + 1).collect();
    numbers.into_iter()
}

#[derive(Debug, Clone, Copy)]
enum Way {
    To,
    From,
    Between,
}

/// Cut so often, and resumed each time.
async fn cut_and_resumed(fixture: &Fixture, way: Way, cuts: usize) -> Result {
    plant(&fixture.path("tree"))?;
    let expected = survey(&fixture.path("tree"))?;
    let cutter = Cutter::default();
    let pod = cut_off(&fixture.server, "web-0", &cutter)?;
    let other = cut_off(&fixture.server, "web-1", &cutter)?;
    let (mut most, mut seed) = (0, 1);
    while cutter.cuts() < cuts {
        let (name, there) = (fixture.path("copy"), fixture.remote("copy"));
        let tree = fixture.remote("tree");
        if most > 0 {
            seed += 1;
            cutter.plan(gaps(seed, most).take(10.min(cuts - cutter.cuts())));
        }
        let before = cutter.cuts();
        match way {
            Way::To => pod.copy_to(&tree, there).retries(u32::MAX).run().await?,
            Way::From => pod.copy_from(&tree, &name).retries(u32::MAX).run().await?,
            Way::Between => {
                let copy = pod.copy_between(&tree, &other, there);
                copy.retries(u32::MAX).run().await?
            }
        };
        assert_same(&survey(&name)?, &expected, true);
        assert!(most == 0 || cutter.cuts() > before, "nothing was cut");
        assert!(fixture.aside()?.is_empty());
        fs::remove_dir_all(&name)?;
        let passed = cutter.passed();
        if most == 0 {
            // So that a few hit each copy.
            most = passed / 4;
        } else {
            let times = passed as f64 / (4 * most) as f64;
            println!(
                "{way:?}, seed {seed}: {} cuts, {times:.1} times the bytes",
                cutter.cuts() - before
            );
        }
    }
    Ok(())
}

/// In each direction; the whole number takes minutes.
fn cuts() -> usize {
    let cuts = std::env::var("KUBEWIRE_CUTS").ok();
    cuts.and_then(|it| it.parse().ok()).unwrap_or(20)
}

#[tokio::test]
async fn a_copy_to_a_container_goes_on_after_cuts() -> Result {
    cut_and_resumed(&Fixture::new().await?, Way::To, cuts()).await
}

#[tokio::test]
async fn a_copy_from_a_container_goes_on_after_cuts() -> Result {
    cut_and_resumed(&Fixture::new().await?, Way::From, cuts()).await
}

#[tokio::test]
async fn a_copy_between_pods_goes_on_after_cuts() -> Result {
    cut_and_resumed(&Fixture::new().await?, Way::Between, cuts()).await
}

/// Not every `tar` can be told what to leave out, and busybox's finds no holes.
#[tokio::test]
async fn copies_go_on_with_the_programs_of_busybox() -> Result {
    let names = [&NEEDED[..], &["dd", "find", "head", "stat", "tail", "wc"]].concat();
    let Some(bin) = busybox(&names)? else {
        return Ok(());
    };
    for way in [Way::To, Way::From, Way::Between] {
        let fixture = Fixture::with_path(bin.path().to_str().unwrap()).await?;
        cut_and_resumed(&fixture, way, 8).await?;
    }
    Ok(())
}

#[tokio::test]
async fn copies_go_on_where_cksum_compares() -> Result {
    let bin = with_cksum()?;
    for way in [Way::To, Way::From, Way::Between] {
        let fixture = Fixture::with_path(bin.path().to_str().unwrap()).await?;
        cut_and_resumed(&fixture, way, 8).await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_has_come_before_a_cut_does_not_come_again() -> Result {
    let fixture = Fixture::new().await?;
    fs::write(fixture.path("large"), noise(5, 24 << 20))?;
    let cutter = Cutter::default();
    let pod = cut_off(&fixture.server, "web-0", &cutter)?;
    for _ in 0..2 {
        cutter.plan([20 << 20]);
        let copy = pod.copy_to(fixture.path("large"), fixture.remote("there"));
        copy.retries(1).run().await?;
        let passed = cutter.passed();
        assert!(passed < 34 << 20, "{passed} bytes for 24 MiB");
        assert_eq!(fs::read(fixture.path("there"))?, noise(5, 24 << 20));
        cutter.plan([20 << 20]);
        let copy = pod.copy_from(fixture.remote("large"), fixture.path("back"));
        copy.retries(1).run().await?;
        let passed = cutter.passed();
        assert!(passed < 27 << 20, "{passed} bytes for 24 MiB");
        assert_eq!(fs::read(fixture.path("back"))?, noise(5, 24 << 20));
    }
    Ok(())
}

#[tokio::test]
async fn without_retries_a_cut_is_an_error_and_leaves_no_half_file() -> Result {
    let fixture = Fixture::new().await?;
    plant(&fixture.path("tree"))?;
    let expected = survey(&fixture.path("tree"))?;
    let cutter = Cutter::default();
    let pod = cut_off(&fixture.server, "web-0", &cutter)?;
    for gap in gaps(3, 5 << 20).take(8) {
        cutter.plan([gap]);
        let copy = pod.copy_from(fixture.remote("tree"), fixture.path("back"));
        let error = copy.run().await.expect_err("it was cut");
        assert!(matches!(error, Error::Network(_)), "after {gap}: {error:?}");
        if fixture.path("back").exists() {
            for (path, state) in survey(&fixture.path("back"))? {
                let here = expected.get(&path).map_or("", |state| state);
                let whole = state.split(' ').take(3).eq(here.split(' ').take(3));
                assert!(
                    whole || !state.contains(" bytes "),
                    "{path:?} after {gap}: {state}"
                );
            }
        }
        cutter.plan([gap]);
        let copy = pod.copy_to(fixture.path("tree"), fixture.remote("there"));
        let error = copy.run().await.expect_err("it was cut");
        assert!(matches!(error, Error::Network(_)), "after {gap}: {error:?}");
        assert!(!fixture.path("there").exists());
        assert!(fixture.aside()?.is_empty());
    }
    Ok(())
}

#[tokio::test]
async fn a_dropped_copy_leaves_nothing_behind() -> Result {
    let fixture = Fixture::new().await?;
    plant(&fixture.path("tree"))?;
    // It stalls in the middle, and is dropped there.
    for (to, bytes) in [(false, 6 << 20), (false, 20 << 20), (true, 6 << 20)] {
        let progress = Progress::default();
        let watched = progress.clone();
        let (tree, there) = (fixture.remote("tree"), fixture.remote("there"));
        let pod = fixture.pod.clone();
        let back = fixture.path("back");
        let copy = async move {
            match to {
                true => pod.copy_to(&tree, there).progress(&watched).run().await,
                false => pod.copy_from(&tree, back).progress(&watched).run().await,
            }
        };
        let reached = async {
            while progress.bytes() < bytes {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            done = copy => drop(done?),
            () = reached => {}
        }
        progress.settled().await;
        assert!(!fixture.path("there").exists() || progress.bytes() > bytes);
        assert!(fixture.aside()?.is_empty());
    }
    Ok(())
}

#[tokio::test]
async fn what_is_left_in_a_container_is_told() -> Result {
    let fixture = Fixture::new().await?;
    plant(&fixture.path("tree"))?;
    // The server is gone for long, or comes back.
    for (cuts, is_left) in [(2, false), (100_000, true)] {
        let cutter = Cutter::default();
        let pod = cut_off(&fixture.server, "web-0", &cutter)?;
        let progress = Progress::default();
        let copy = pod.copy_to(fixture.path("tree"), fixture.remote("there"));
        cutter.plan([1 << 20].into_iter().chain(std::iter::repeat_n(1, cuts)));
        let error = copy.progress(&progress).run().await.unwrap_err();
        assert!(matches!(error, Error::Network(_)), "{error:?}");
        let told = progress.settled().await.into_iter().map(PathBuf::from);
        assert_eq!(told.collect::<Vec<_>>(), fixture.aside()?);
        assert_eq!(!fixture.aside()?.is_empty(), is_left);
    }
    Ok(())
}

#[tokio::test]
async fn a_deadline_ends_all_attempts() -> Result {
    let fixture = Fixture::new().await?;
    fs::write(fixture.path("file"), "x")?;
    fixture.server.inject(Fault::StallAfter(0));
    let copy = fixture
        .pod
        .copy_from(fixture.remote("file"), fixture.path("back"));
    let copy = copy.retries(u32::MAX).deadline(Duration::from_millis(300));
    let error = copy.run().await.expect_err("it stalls");
    assert!(
        matches!(error, Error::Caller(CallerError::TimedOut { .. })),
        "{error:?}"
    );
    Ok(())
}

#[tokio::test]
async fn what_fails_in_the_container_is_not_tried_again() -> Result {
    let fixture = Fixture::new().await?;
    let copy = fixture
        .pod
        .copy_from(fixture.remote("missing"), fixture.path("back"));
    let copy = copy.retries(u32::MAX);
    // For ever, if it were.
    let error = tokio::time::timeout(Duration::from_secs(300), copy.run())
        .await?
        .unwrap_err();
    assert!(matches!(error, Error::Api(_)), "{error:?}");
    Ok(())
}

/// How many processes of this machine have both texts among their arguments.
#[cfg(target_os = "linux")]
fn running(program: &str, place: &str) -> usize {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).into_owned());
    lines
        .filter(|line| line.contains(program) && line.contains(place))
        .count()
}

#[cfg(target_os = "linux")]
async fn nothing_runs(place: &str) {
    soon(async {
        while running("", place) > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_copy_that_is_given_up_leaves_nothing_running_in_the_container() -> Result {
    let fixture = Fixture::new().await?;
    let place = fixture.disk.path().to_str().unwrap();
    let hole = fixture.disk.path().join("hole");
    // It takes hours to read.
    fs::File::create(&hole)?.set_len(4 << 40)?;
    let copy = fixture
        .pod
        .copy_from(hole.to_str().unwrap(), fixture.disk.path().join("copy"))
        .max_bytes(u64::MAX);
    let begun = async {
        while running("sha256sum", place) == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        copied = copy.run() => panic!("{copied:?}"),
        () = soon(begun) => {}
    }
    nothing_runs(place).await;
    Ok(())
}

/// A program that is `name` but does not end when `when` is true of its arguments, and loses the
/// first signal, as one does that it comes to before it has begun. Gives the file that says that it
/// runs.
#[cfg(target_os = "linux")]
fn deaf(bin: &Path, name: &str, when: &str) -> std::io::Result<PathBuf> {
    let program = bin.join(name);
    let hang = "{ exec >/dev/null 2>&1; trap 'trap - TERM' TERM; : >\"$0.runs\"
while :; do /usr/bin/sleep 1; done; }";
    fs::write(
        &program,
        format!("#!/bin/sh\n{when} && {hang}\nexec /usr/bin/{name} \"$@\"\n"),
    )?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(bin.join(format!("{name}.runs")))
}

#[cfg(target_os = "linux")]
async fn is_there(path: &Path) {
    soon(async {
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_program_that_the_first_signal_is_lost_on_ends_with_the_copy_as_well() -> Result {
    let bin = of_system(&["sh", "tar", "xargs", "sleep"])?;
    let runs = deaf(bin.path(), "sha256sum", "true")?;
    let fixture = Fixture::with_path(bin.path().to_str().unwrap()).await?;
    let place = fixture.disk.path().to_str().unwrap();
    fs::write(fixture.path("large"), vec![7; 9 << 20])?;
    let copy = fixture
        .pod
        .copy_from(fixture.remote("large"), fixture.path("copy"));
    tokio::select! {
        copied = copy.run() => panic!("{copied:?}"),
        () = is_there(&runs) => {}
    }
    nothing_runs(place).await;
    Ok(())
}

/// Where nothing compares files, `tar` reads them back.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_copy_that_is_given_up_leaves_no_tar_that_reads_back() -> Result {
    let bin = of_system(&["sh", "cat", "mkdir", "mv", "rm", "chmod", "touch", "sleep"])?;
    let runs = deaf(
        bin.path(),
        "tar",
        "case \"$*\" in *' ./it') ;; *) false ;; esac",
    )?;
    let fixture = Fixture::with_path(bin.path().to_str().unwrap()).await?;
    let place = fixture.disk.path().to_str().unwrap();
    fs::write(fixture.path("file"), "contents")?;
    let copy = fixture
        .pod
        .copy_to(fixture.path("file"), fixture.remote("copy"));
    tokio::select! {
        copied = copy.run() => panic!("{copied:?}"),
        () = is_there(&runs) => {}
    }
    nothing_runs(place).await;
    Ok(())
}
