//! What a command prints: data on stdout, in the format that fits the reader; everything else on stderr.

use super::{Context, error::Result};
use crate::cli::error::CliError;
use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width};
use serde::Serialize;
use serde_json::Value;
use std::{
    io::{BufWriter, Stdout, Write},
    time::Duration,
};

/// Rows of a table that are laid out together. More rows: wider memory; fewer: columns that jump.
const PAGE_ROWS: usize = 200;

/// In [`Rows::bulk`] mode the first rows are still written one by one, so that `| head` and people see them at once.
const BULK_AFTER_ROWS: u64 = 256;

/// Spaces between columns.
const GAP: u16 = 2;

/// Bytes that are collected before a write: a pipe holds 64 KiB.
const BUFFER_BYTES: usize = 64 * 1024;

/// How rows are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Format {
    /// Aligned columns, for people. The default on a terminal.
    Table,
    /// One JSON object per line. The default when piped.
    Ndjson,
    /// Comma-separated values with a header line.
    Csv,
    /// Only the identifier (CID, peer id), one per line.
    Ids,
}

/// `--format`, to be flattened into a command's `Args`.
#[derive(clap::Args, Clone, Copy, Default, Debug)]
pub struct FormatArg {
    /// Output format [default: table on a terminal, ndjson when piped]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: Option<Format>,
}

impl FormatArg {
    /// What was asked for, else what fits stdout.
    pub fn resolve(self, context: &Context) -> Format {
        self.resolve_or(context, Format::Ndjson)
    }

    /// The same with another default when piped: `findprovs` prints ids.
    pub fn resolve_or(self, context: &Context, piped: Format) -> Format {
        self.format.unwrap_or(if context.stdout_is_terminal { Format::Table } else { piped })
    }
}

/// What table, CSV and ids show of a row; NDJSON always shows all fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Schema {
    /// Fields of the serialised row, in order.
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
    /// Rows to stdout.
    pub fn stdout(format: Format, schema: Schema) -> Self {
        Self::new(std::io::stdout(), format, schema)
    }
}

impl<W: Write> Rows<W> {
    /// Rows to any writer.
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

    /// For very many rows: after the first few hundred, writes are collected into large ones.
    #[must_use]
    pub fn bulk(mut self) -> Self {
        self.bulk = true;
        self
    }

    /// From here on rows have other columns (`dump` of several tables). Table and CSV begin a new header.
    pub fn switch(&mut self, schema: Schema) -> Result<()> {
        if schema == self.schema {
            return Ok(());
        }
        self.print_page()?;
        if self.written > 0 && matches!(self.format, Format::Table | Format::Csv) {
            writeln!(self.out)?;
        }
        self.schema = schema;
        self.header_due = true;
        self.widths.clear();
        Ok(())
    }

    /// Prints a row. The row must serialise to an object. A closed pipe is the error that exits 0.
    pub fn push<T: Serialize + ?Sized>(&mut self, row: &T) -> Result<()> {
        match self.format {
            Format::Ndjson => {
                serde_json::to_writer(&mut self.out, row).map_err(json_error)?;
                self.out.write_all(b"\n")?;
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
                    writeln!(self.out, "{id}")?;
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
            self.out.flush()?;
        }
        Ok(())
    }

    /// Prints lines that are NDJSON already, the last with or without its end.
    pub fn push_ndjson(&mut self, lines: &[u8]) -> Result<()> {
        self.out.write_all(lines)?;
        if !lines.ends_with(b"\n") {
            self.out.write_all(b"\n")?;
        }
        self.written += 1;
        if self.written <= BULK_AFTER_ROWS {
            self.out.flush()?;
        }
        Ok(())
    }

    /// Rows pushed so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Shows what is held back (a page of a table that is not full). Call it when a slow stream pauses.
    pub fn flush(&mut self) -> Result<()> {
        self.print_page()?;
        Ok(self.out.flush()?)
    }

    /// The end: shows what is held back. Returns how many rows there were.
    pub fn finish(mut self) -> Result<u64> {
        self.flush()?;
        Ok(self.written)
    }

    fn cells(&self, row: &Value, kind: Cell) -> Vec<String> {
        self.schema.columns.iter().map(|column| cell(row.get(column), kind)).collect()
    }

    /// The first page fixes the least width of each column, so that the pages after it line up with its header.
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
            // The boundary counts the space beside the content.
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width.saturating_add(GAP))));
        }
        if self.widths.is_empty() {
            self.widths = table.column_max_content_widths();
        }
        for line in table.lines() {
            writeln!(self.out, "{}", line.trim_end())?;
        }
        Ok(self.out.flush()?)
    }
}

/// Prints text as it is to stdout, in place of `println!`, which panics on a closed pipe.
pub fn print(text: impl std::fmt::Display) -> Result<()> {
    let mut out = std::io::stdout().lock();
    write!(out, "{text}")?;
    Ok(out.flush()?)
}

/// Prints one object: as a table of names and values on a terminal, as one JSON line when piped.
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

/// A progress bar on stderr: shown only on a terminal and without `-q`. `total` unknown: a spinner with a count.
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

/// `3h 12m`: the two largest units, for people.
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

/// `1.20 MiB`.
pub fn human_bytes(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

fn to_value<T: Serialize + ?Sized>(row: &T) -> Result<Value> {
    serde_json::to_value(row).map_err(json_error)
}

/// An IO error inside (a closed pipe) keeps its meaning.
fn json_error(error: serde_json::Error) -> CliError {
    if error.is_io() { std::io::Error::from(error).into() } else { CliError::other(error) }
}

fn write_csv<W: Write, S: AsRef<[u8]>>(out: &mut W, cells: &[S]) -> Result<()> {
    let mut writer = csv::WriterBuilder::new().buffer_capacity(1024).from_writer(out);
    writer.write_record(cells).map_err(csv_error)?;
    Ok(writer.flush()?)
}

fn csv_error(error: csv::Error) -> CliError {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error.into(),
        kind => CliError::other(format_args!("cannot write csv: {kind:?}")),
    }
}

/// How the items of a list stand in one cell, and whether a terminal reads it.
#[derive(Clone, Copy)]
enum Cell {
    /// One item per line, nothing that a terminal would obey.
    Screen,
    /// Separated by spaces, as they are: for programs.
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

/// Strangers choose agent strings and the like: what would move the cursor, forge a line or turn text around is shown
/// by its code.
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
