//! The built tool against the embedded API server: what it writes where, its exit codes, the
//! terminal, and kubectl beside it.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests are tests"
)]

#[path = "../common/kubectl.rs"]
mod kubectl;
#[path = "../common/tool.rs"]
mod tool;
#[path = "../common/tree.rs"]
mod tree;

mod cp;
mod cp_size;
mod debug;
mod ends;
mod exec;
mod flags;
mod get;
mod kubectl_flags;
mod logs;
mod many;
mod pages;
mod port_forward;
mod proxy;
mod screens;
mod terminal;
mod verbs;
mod watch;
