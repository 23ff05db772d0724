//! What may be given as a command: in flows one word or many, out comes the list that the server
//! gets.

/// A command for [`Pod::exec`](crate::Pod::exec): a program alone, or a program and its arguments.
///
/// `M` tells the two apart and is always inferred.
///
/// ```
/// use kubewire::exec::IntoCommand;
///
/// assert_eq!("date".into_command(), ["date"]);
/// assert_eq!(["date", "-u"].into_command(), ["date", "-u"]);
/// assert_eq!(vec![String::from("date")].into_command(), ["date"]);
/// assert_eq!((&["date", "-u"]).into_command(), ["date", "-u"]);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no command",
    note = "give a program, \"date\", or a program and its arguments, [\"date\", \"-u\"]"
)]
pub trait IntoCommand<M> {
    /// The program, then its arguments.
    fn into_command(self) -> Vec<String>;
}

/// One word: a program without arguments. No shell takes it apart.
///
/// ```
/// use kubewire::exec::IntoCommand;
///
/// assert_eq!("date -u".into_command(), ["date -u"]); // no shell: a program of this name
/// ```
#[derive(Debug)]
pub struct Program(());

/// A program and its arguments.
///
/// ```
/// use kubewire::exec::IntoCommand;
///
/// assert_eq!(["date", "-u"].into_command(), ["date", "-u"]);
/// ```
#[derive(Debug)]
pub struct Words(());

impl<S: Into<String>> IntoCommand<Program> for S {
    fn into_command(self) -> Vec<String> {
        vec![self.into()]
    }
}

impl<I> IntoCommand<Words> for I
where
    I: IntoIterator,
    I::Item: AsRef<str>,
{
    fn into_command(self) -> Vec<String> {
        let words = self.into_iter();
        words.map(|word| word.as_ref().to_owned()).collect()
    }
}
