//! kubectl's ways to write flags: in flows the command line's definition, out it comes with them.

use clap::{Arg, ArgAction, Command};

/// What is on both sides of an equals sign, of which `form` has the names.
pub(crate) fn pair(text: &str, form: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not {form}")),
    }
}

/// Lets flags that take no value take `true` and `false` as well, as Go's do: `--follow=true`.
pub(crate) fn with_values(command: Command) -> Command {
    let take_value = |flag: Arg| match flag.get_action() {
        ArgAction::SetTrue => flag
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_value("false")
            .default_missing_value("true")
            .hide_default_value(true)
            .hide_possible_values(true)
            .value_name("BOOL"),
        _ => flag,
    };
    command.mut_args(take_value).mut_subcommands(with_values)
}
