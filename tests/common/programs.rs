//! The programs in `examples/`, run as their users run them. `cargo test` builds them; for one file
//! of tests alone, `cargo build --examples --all-features` does.

use std::{path::PathBuf, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

pub(crate) const DEADLINE: Duration = Duration::from_secs(180);

pub(crate) fn path(name: &str) -> Result<PathBuf> {
    let mut path = std::env::current_exe()?;
    path.pop();
    path.set_file_name("examples");
    path.push(name);
    match path.exists() {
        true => Ok(path),
        false => Err(format!("{} is not built", path.display()).into()),
    }
}

pub(crate) fn program(name: &str) -> Result<Command> {
    let mut command = Command::new(path(name)?);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    Ok(command)
}

/// Runs a program to its end; gives its exit code and what it wrote.
pub(crate) async fn run(mut program: Command) -> Result<(Option<i32>, String)> {
    let output = tokio::time::timeout(DEADLINE, program.output()).await??;
    Ok((output.status.code(), String::from_utf8(output.stdout)?))
}

/// A program that goes on until this is dropped.
pub(crate) struct Running {
    _process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    pub(crate) fn of(mut program: Command) -> Result<Self> {
        let mut process = program.spawn()?;
        let stdout = process.stdout.take().ok_or("stdout is piped")?;
        let lines = BufReader::new(stdout).lines();
        Ok(Self {
            _process: process,
            lines,
        })
    }

    pub(crate) async fn line(&mut self) -> Result<String> {
        let line = tokio::time::timeout(DEADLINE, self.lines.next_line()).await??;
        Ok(line.ok_or("it has ended")?)
    }

    /// The next line for which this holds.
    pub(crate) async fn line_that(&mut self, holds: impl Fn(&str) -> bool) -> Result<String> {
        loop {
            let line = self.line().await?;
            if holds(&line) {
                return Ok(line);
            }
        }
    }
}
