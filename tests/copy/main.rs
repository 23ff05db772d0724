//! Copies of files and trees, between this crate's client and its embedded server, whose containers
//! run the programs of this machine.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "helpers of tests are tests"
)]

mod between;
mod changes;
mod cut;
#[path = "../common/cutter.rs"]
mod cutter;
mod fixture;
mod hostile;
mod images;
mod size;
#[path = "../common/soon.rs"]
mod soon;
#[path = "../common/tree.rs"]
mod tree;
mod trees;
