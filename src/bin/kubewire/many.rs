//! `kubewire exec -l`: a command in many pods at once. In flow labels, out come the lines of all,
//! each behind its pod's name, and a table of exit codes on stderr.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use clap::Args;
use kubewire::exec::{AllEvent, AllOutput, ExecAll};

use crate::{
    duration,
    exec::{code, exit_code},
    failure::{Failure, Local as _, note},
    printable::Printable,
    signals::Signals,
    stdio::Output,
    table::Layout,
};

/// How many commands, and how long.
#[derive(Args)]
pub(crate) struct Bounds {
    /// How many of the pods may be at it at once
    #[arg(long, value_name = "PODS", default_value_t = kubewire::limits::ALL_AT_ONCE, conflicts_with_all = ["pod", "filename"],
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=4096))]
    pub(crate) max_concurrent: usize,
    /// How long a command may take until its connection is closed: 1m30s, or a number of seconds
    #[arg(long, value_name = "DURATION", value_parser = duration::or_seconds)]
    pub(crate) timeout: Option<Duration>,
}

type Ended = Result<i64, String>;

pub(crate) async fn run(all: ExecAll, quiet: bool) -> Result<u8, Failure> {
    let unusable = "the standard streams cannot be used";
    let mut signals = Signals::new().local(unusable)?;
    let mut running = tokio::select! {
        running = all.spawn() => running?,
        number = signals.end() => return Err(Failure::Signal(number)),
    };
    let stdout = Output::stdout().local(unusable)?;
    let stderr = Output::stderr().local(unusable)?;
    let mut how: HashMap<Arc<str>, Ended> = HashMap::new();
    loop {
        let AllEvent { pod, output } = tokio::select! {
            number = signals.end() => return Err(Failure::Signal(number)),
            event = running.next() => match event {
                Some(event) => event,
                None => break,
            },
        };
        let written = match output {
            AllOutput::Stdout(line) => stdout.write(prefixed(&pod, &line)).await,
            AllOutput::Stderr(line) => stderr.write(prefixed(&pod, &line)).await,
            AllOutput::Ended(ended) => {
                let ended = ended.map(|status| code(&status));
                how.insert(pod, ended.map_err(|error| error.to_string()));
                true
            }
            _ => true,
        };
        if !written {
            break;
        }
    }
    // Before the table, and with the failure that ended the loop, if one did.
    stdout.finish().await?;
    stderr.finish().await?;
    let names = running.pods();
    let unknown = || Err("it has not said how it ended".to_owned());
    let ended: Vec<_> = names
        .iter()
        .map(|name| how.remove(name).unwrap_or_else(unknown))
        .collect();
    if !quiet {
        print(names, &ended);
    }
    Ok(whole(&ended))
}

/// A line behind its pod's name.
fn prefixed(pod: &str, line: &[u8]) -> Bytes {
    let prefix = Printable::line(&format!("[{pod}] ")).to_string();
    [prefix.as_bytes(), line, b"\n"].concat().into()
}

fn print(names: &[Arc<str>], ended: &[Ended]) {
    let mut rows = vec![["POD", "EXIT CODE"].map(Printable::cell).to_vec()];
    for (name, how) in names.iter().zip(ended) {
        let how = match how {
            Ok(code) => code.to_string(),
            Err(error) => format!("error: {error}"),
        };
        rows.push(vec![Printable::cell(name), Printable::line(&how)]);
    }
    let mut layout = Layout::default();
    rows.iter().for_each(|row| layout.fit(row));
    for row in rows {
        note(&layout.line(&row));
    }
}

/// The exit code for all: that which those share that are not 0, or 1.
fn whole(ended: &[Ended]) -> u8 {
    let codes = ended
        .iter()
        .map(|how| how.as_ref().map_or(1, |code| exit_code(*code)));
    let mut failed = codes.filter(|code| *code != 0);
    match failed.next() {
        None => 0,
        Some(first) if failed.all(|code| code == first) => first,
        Some(_) => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_of_all_is_no_success_that_one_was_not() {
        let error = || Err("no".to_owned());
        for (ended, code) in [
            (vec![Ok(0), Ok(0)], 0),
            (vec![Ok(0), Ok(3), Ok(3)], 3),
            (vec![Ok(2), Ok(3)], 1),
            (vec![Ok(0), error()], 1),
            (vec![Ok(256)], 1),
            (vec![Ok(3), error()], 1),
        ] {
            assert_eq!(whole(&ended), code, "{ended:?}");
        }
    }
}
