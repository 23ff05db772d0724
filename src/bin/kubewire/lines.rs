//! Lines to stdout: in flow their parts, out they come whole and in order.

use bytes::BytesMut;
use kubewire::wire::line::LineEnd;

use crate::{
    failure::{Failure, Local as _},
    printable::Printable,
    stdio::Output,
    table::Layout,
};

pub(crate) struct Lines {
    out: Option<Output>,
    buffer: BytesMut,
    last: LineEnd,
}

impl Lines {
    pub(crate) fn start() -> Result<Self, Failure> {
        let out = Output::stdout().local("stdout")?;
        Ok(Self {
            out: Some(out),
            buffer: BytesMut::new(),
            last: LineEnd::Newline,
        })
    }

    /// Begins a line, unless a piece of it is there; says whether it did.
    pub(crate) fn begin(&mut self) -> bool {
        if self.last == LineEnd::Body {
            // The last line of another log, which has no newline.
            self.write(b"\n");
        }
        self.last != LineEnd::Piece
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Ends the line, or a piece of it, and hands it on.
    pub(crate) async fn end(&mut self, end: LineEnd) -> Result<(), Failure> {
        if end == LineEnd::Newline {
            self.write(b"\n");
        }
        self.last = end;
        self.flush().await
    }

    /// Hands on text that has its own ends of lines.
    pub(crate) async fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.begin();
        self.write(text.as_bytes());
        self.last = LineEnd::Newline;
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        let bytes = self.buffer.split().freeze();
        let written = match &self.out {
            Some(out) => out.write(bytes).await,
            None => false,
        };
        if written { Ok(()) } else { self.finish().await }
    }

    pub(crate) async fn finish(&mut self) -> Result<(), Failure> {
        let Some(out) = self.out.take() else {
            return Err(Failure::BrokenPipe);
        };
        out.finish()
            .await
            .map_err(|error| Failure::stream("stdout", &error))
    }
}

/// The rows of a table that grows.
#[derive(Default)]
pub(crate) struct Rows {
    /// To be printed in front of the next row.
    headings: Option<Vec<Printable>>,
    layout: Layout,
    waiting: Vec<Vec<Printable>>,
}

impl Rows {
    /// Begins a part of it, perhaps with headings.
    pub(crate) fn begin(&mut self, headings: Option<Vec<Printable>>) {
        self.headings = headings;
    }

    /// Keeps a row: columns are as wide as all that are printed together need, and those before.
    pub(crate) fn push(&mut self, row: Vec<Printable>) {
        for row in self.headings.take().into_iter().chain([row]) {
            self.layout.fit(&row);
            self.waiting.push(row);
        }
    }

    pub(crate) async fn print(&mut self, out: &mut Lines) -> Result<(), Failure> {
        for row in self.waiting.drain(..) {
            out.text(&format!("{}\n", self.layout.line(&row))).await?;
        }
        Ok(())
    }
}
