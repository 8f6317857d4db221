//! Output of commands: data on stdout, in a format for people or for programs; everything else on stderr.

use super::{Context, error::Result};
use crate::cli::error::CliError;
use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width};
use serde::Serialize;
use serde_json::Value;
use std::{
    io::{BufWriter, Stdout, Write},
    time::Duration,
};

/// Rows of a table that are laid out together. More rows take more memory; with fewer rows the column widths change
/// more often.
const PAGE_ROWS: usize = 200;

/// Rows that are written one by one at first in [`Rows::bulk`] mode, so that people and `| head` see them at once.
const BULK_AFTER_ROWS: u64 = 256;

/// Spaces between columns.
const GAP: u16 = 2;

/// Size of the write buffer, in bytes: as much as a pipe holds.
const BUFFER_BYTES: usize = 64 * 1024;

/// Output format of rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Format {
    /// Aligned columns, for people. Default on a terminal
    Table,
    /// One JSON object per line. Default in a pipe
    Ndjson,
    /// Comma-separated values with a header line
    Csv,
    /// Only the identifier (CID, peer id), one per line
    Ids,
}

/// The option `--format`, flattened into a command's `Args`.
#[derive(clap::Args, Clone, Copy, Default, Debug)]
pub struct FormatArg {
    /// Output format [default: table on a terminal, ndjson in a pipe]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: Option<Format>,
}

impl FormatArg {
    /// Returns the format of the command line, or else the default for stdout.
    pub fn resolve(self, context: &Context) -> Format {
        self.resolve_or(context, Format::Ndjson)
    }

    /// Does the same with another default for pipes: `findprovs` prints ids.
    pub fn resolve_or(self, context: &Context, piped: Format) -> Format {
        self.format.unwrap_or(if context.stdout_is_terminal { Format::Table } else { piped })
    }
}

/// Fields of a row that table, CSV and ids show. NDJSON always shows all fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Schema {
    /// Columns: fields of the serialised row, in order.
    pub columns: &'static [&'static str],
    /// The field that [`Format::Ids`] prints.
    pub id: &'static str,
}

/// Prints rows as they come, in constant memory.
#[derive(Debug)]
pub struct Rows<W: Write = Stdout> {
    out: BufWriter<W>,
    format: Format,
    schema: Schema,
    bulk: bool,
    written: u64,
    header_due: bool,
    page: Vec<Vec<String>>,
    widths: Vec<u16>,
}

impl Rows<Stdout> {
    /// Creates a printer that writes to stdout.
    pub fn stdout(format: Format, schema: Schema) -> Self {
        Self::new(std::io::stdout(), format, schema)
    }
}

impl<W: Write> Rows<W> {
    /// Creates a printer that writes to `out`.
    pub fn new(out: W, format: Format, schema: Schema) -> Self {
        Self {
            out: BufWriter::with_capacity(BUFFER_BYTES, out),
            format,
            schema,
            bulk: false,
            written: 0,
            header_due: true,
            page: Vec::new(),
            widths: Vec::new(),
        }
    }

    /// Collects writes into large ones after the first few hundred rows. For very many rows.
    #[must_use]
    pub fn bulk(mut self) -> Self {
        self.bulk = true;
        self
    }

    /// Changes the columns for the rows that follow, as `dump` of several tables does. Table and CSV get a new header.
    pub fn switch(&mut self, schema: Schema) -> Result<()> {
        if schema == self.schema {
            return Ok(());
        }
        self.print_page()?;
        if self.written > 0 && matches!(self.format, Format::Table | Format::Csv) {
            writeln!(self.out).map_err(unwritable)?;
        }
        self.schema = schema;
        self.header_due = true;
        self.widths.clear();
        Ok(())
    }

    /// Prints a row, which must serialise to an object. A closed pipe returns the error that exits with 0.
    pub fn push<T: Serialize + ?Sized>(&mut self, row: &T) -> Result<()> {
        match self.format {
            Format::Ndjson => {
                serde_json::to_writer(&mut self.out, row).map_err(json_error)?;
                self.out.write_all(b"\n").map_err(unwritable)?;
            }
            Format::Csv => {
                let cells = self.cells(&to_value(row)?, Cell::Data);
                if std::mem::take(&mut self.header_due) {
                    write_csv(&mut self.out, self.schema.columns)?;
                }
                write_csv(&mut self.out, &cells)?;
            }
            Format::Ids => {
                let id = cell(to_value(row)?.get(self.schema.id), Cell::Screen);
                if !id.is_empty() {
                    writeln!(self.out, "{id}").map_err(unwritable)?;
                }
            }
            Format::Table => {
                let cells = self.cells(&to_value(row)?, Cell::Screen);
                self.page.push(cells);
                if self.page.len() >= PAGE_ROWS {
                    self.print_page()?;
                }
            }
        }
        self.written += 1;
        if self.format != Format::Table && (!self.bulk || self.written <= BULK_AFTER_ROWS) {
            self.out.flush().map_err(unwritable)?;
        }
        Ok(())
    }

    /// Prints lines of NDJSON as they are. The last may lack its line end.
    pub fn push_ndjson(&mut self, lines: &[u8]) -> Result<()> {
        self.out.write_all(lines).map_err(unwritable)?;
        if !lines.ends_with(b"\n") {
            self.out.write_all(b"\n").map_err(unwritable)?;
        }
        self.written += 1;
        if self.written <= BULK_AFTER_ROWS {
            self.out.flush().map_err(unwritable)?;
        }
        Ok(())
    }

    /// Number of rows pushed so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Prints the rows of a page that is not full yet. Call it when a slow stream pauses.
    pub fn flush(&mut self) -> Result<()> {
        self.print_page()?;
        self.out.flush().map_err(unwritable)
    }

    /// Prints the remaining rows. Returns the number of all rows.
    pub fn finish(mut self) -> Result<u64> {
        self.flush()?;
        Ok(self.written)
    }

    fn cells(&self, row: &Value, kind: Cell) -> Vec<String> {
        self.schema.columns.iter().map(|column| cell(row.get(column), kind)).collect()
    }

    /// Prints a page. The first page sets the minimum width of each column, so that later pages line up with its
    /// header.
    fn print_page(&mut self) -> Result<()> {
        if self.page.is_empty() {
            return Ok(());
        }
        let mut table = Table::new();
        table.load_preset(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        if std::mem::take(&mut self.header_due) {
            table.set_header(self.schema.columns.iter().map(|c| c.replace('_', " ")));
        }
        table.add_rows(self.page.drain(..));
        for column in table.column_iter_mut() {
            column.set_padding((0, GAP));
        }
        for (column, width) in table.column_iter_mut().zip(&self.widths) {
            // The boundary includes the padding.
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width.saturating_add(GAP))));
        }
        if self.widths.is_empty() {
            self.widths = table.column_max_content_widths();
        }
        for line in table.lines() {
            writeln!(self.out, "{}", line.trim_end()).map_err(unwritable)?;
        }
        self.out.flush().map_err(unwritable)
    }
}

/// Prints text to stdout unchanged. Unlike `println!` it does not panic on a closed pipe.
pub fn print(text: impl std::fmt::Display) -> Result<()> {
    let mut out = std::io::stdout().lock();
    write!(out, "{text}").map_err(unwritable)?;
    out.flush().map_err(unwritable)
}

/// Prints one object: on a terminal as a table of names and values, in a pipe as one line of JSON.
pub fn print_object<T: Serialize>(object: &T, format: Format) -> Result<()> {
    if format == Format::Ndjson {
        let line = serde_json::to_string(object).map_err(json_error)?;
        return print(format_args!("{line}\n"));
    }
    let mut rows = Rows::stdout(format, Schema { columns: &["name", "value"], id: "value" });
    if let Value::Object(fields) = to_value(object)? {
        for (name, value) in fields {
            rows.push(&serde_json::json!({ "name": name, "value": value }))?;
        }
    }
    rows.finish().map(drop)
}

/// Creates a progress bar on stderr, shown only on a terminal and without `-q`. Without a `total` it is a spinner with
/// a count.
pub fn progress(context: &Context, total: Option<u64>, what: &'static str) -> indicatif::ProgressBar {
    use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
    if !context.stderr_is_terminal || context.global.quiet > 0 {
        return ProgressBar::hidden();
    }
    let (bar, template) = match total {
        Some(total) => (ProgressBar::new(total), "{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}"),
        None => (ProgressBar::new_spinner(), "{spinner} {msg} {human_pos} {per_sec} {elapsed}"),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.with_message(what)
}

/// Formats a duration by its two largest units, like `3h 12m`.
pub fn human_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    if seconds == 0 {
        return match duration.as_millis() {
            0 => "0s".into(),
            ms => format!("{ms}ms"),
        };
    }
    let mut rest = seconds;
    let mut parts = Vec::with_capacity(2);
    for (unit, size) in units {
        let count = rest / size;
        rest %= size;
        if count > 0 {
            parts.push(format!("{count}{unit}"));
        } else if !parts.is_empty() {
            break;
        }
        if parts.len() == 2 {
            break;
        }
    }
    parts.join(" ")
}

/// Formats a size like `1.20 MiB`.
pub fn human_bytes(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

fn to_value<T: Serialize + ?Sized>(row: &T) -> Result<Value> {
    serde_json::to_value(row).map_err(json_error)
}

/// Reports that stdout cannot be written. A closed pipe is not a failure.
fn unwritable(error: std::io::Error) -> CliError {
    match error.kind() {
        std::io::ErrorKind::BrokenPipe => CliError::closed_pipe(),
        _ => CliError::other(format_args!("cannot write the output: {error}; check the disk or device behind stdout")),
    }
}

/// Converts an error of serialising. If an IO error caused it, reports that one, and a closed pipe as such.
fn json_error(error: serde_json::Error) -> CliError {
    if error.is_io() { unwritable(error.into()) } else { CliError::other(error) }
}

fn write_csv<W: Write, S: AsRef<[u8]>>(out: &mut W, cells: &[S]) -> Result<()> {
    let mut writer = csv::WriterBuilder::new().buffer_capacity(1024).from_writer(out);
    writer.write_record(cells).map_err(csv_error)?;
    writer.flush().map_err(unwritable)
}

fn csv_error(error: csv::Error) -> CliError {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => unwritable(error),
        kind => CliError::other(format_args!("cannot write csv: {kind:?}")),
    }
}

/// Format of a cell.
#[derive(Clone, Copy)]
enum Cell {
    /// For a terminal: list items on lines of their own, control characters escaped.
    Screen,
    /// For programs: list items separated by spaces, text unchanged.
    Data,
}

fn cell(value: Option<&Value>, kind: Cell) -> String {
    match (value, kind) {
        (None | Some(Value::Null), _) => String::new(),
        (Some(Value::String(text)), Cell::Screen) => printable(text),
        (Some(Value::String(text)), Cell::Data) => text.clone(),
        (Some(Value::Array(items)), _) => {
            let separator = match kind {
                Cell::Screen => "\n",
                Cell::Data => " ",
            };
            items.iter().map(|item| cell(Some(item), kind)).collect::<Vec<_>>().join(separator)
        }
        (Some(other), _) => other.to_string(),
    }
}

/// Escapes characters that would move the cursor, forge a line or reverse text. Other peers choose some of the text
/// that is shown, such as agent strings.
fn printable(text: &str) -> String {
    let hidden = |c: char| {
        c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(hidden) {
        return text.to_owned();
    }
    text.chars().map(|c| if hidden(c) { c.escape_unicode().to_string() } else { c.to_string() }).collect()
}

#[cfg(test)]
mod tests;
