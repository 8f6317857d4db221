//! `dhtstore load`

use super::{
    Context,
    ask::Server,
    error::{CliError, Result, ResultExt},
    output::{self, FormatArg, Rows, Schema},
};
use crate::{
    clock::SystemClock,
    control::protocol::{Loaded, Request},
    kad::keyspace::Key,
    store::{
        Store,
        data_dir::Lock,
        dump::{End, Header, MAX_LINE, Mark},
        load::{Loader, Report},
    },
    transport::identity,
};
use serde::Serialize;
use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::PathBuf,
    thread,
};
use tokio::sync::mpsc;

/// Bytes of lines in one batch. Even with one more line of the greatest length, and with every character escaped, a
/// batch stays below the longest request that the server accepts.
const BATCH_BYTES: usize = 384 << 10;
/// Bad lines after which loading stops: the file is the wrong one, or badly damaged.
const BAD_LINES_MAX: u64 = 100;
/// Bad lines that are shown; further ones are counted.
const BAD_LINES_SHOWN: usize = 20;

/// Arguments of `dhtstore load`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Reads the NDJSON of `dhtstore dump` (format version 1, docs/dump.md) and loads it into the running server, or into \
the directory of a stopped node.
- Records keep their times, so they expire when they would have expired on the other node. Expired rows are left out, \
as are rows with a time more than a minute in the future.
- A row that this node has with the same or a later time stays as it is. A record that was removed here after the \
dumped one was received stays removed. So the same file may be loaded again: repeat a load that was cut off.
- All limits of the configuration apply.
- Own CIDs of the dump become own CIDs of this node only with --provided, even if they were unprovided after the dump.
- Saved routing tables are added to those of this node; a running server soon replaces them with its own.
Exit 65: the file is not a dump, has a later version, was cut off, or has bad lines (more than 100 stop the load, \
unless --keep-going is given). 1: rows were refused by the limits or the disk. All other rows are loaded.

Examples:
  dhtstore load all.ndjson
  ssh old-host dhtstore dump | dhtstore load -
  dhtstore load --provided all.ndjson            also announce the own CIDs of the other node")]
pub struct Args {
    /// Dump to read; `-` is stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Make the own CIDs of the dump own CIDs of this node
    #[arg(long)]
    provided: bool,
    /// Continue after any number of bad lines
    #[arg(long)]
    keep_going: bool,
    /// Start at line N, where an earlier load stopped
    #[arg(long, value_name = "N", default_value_t = 1, hide_default_value = true)]
    from_line: u64,
    #[command(flatten)]
    format: FormatArg,
}

/// Byte order mark of UTF-8.
const UTF8_MARK: &[u8] = "\u{feff}".as_bytes();
/// Start of a gzip file, whose first byte, 0x1f, is read as a space.
const GZIP: &[u8] = &[b' ', 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const XZ: &[u8] = b"\xfd7zXZ";
/// Start of the first line of a dump of any version.
const HEADER: &[u8] = br#"{"dhtstore":"dump""#;

/// Number of rows of a table that had the same outcome.
#[derive(Debug, Serialize)]
struct Outcome<'a> {
    table: &'a str,
    outcome: &'a str,
    rows: u64,
}

const OUTCOME: Schema = Schema { columns: &["table", "outcome", "rows"], id: "outcome" };

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<()> {
    let (input, bytes) = open(&args.file)?;
    let lines = Lines { input, number: 0, header: None, end: None, rows: 0, begins: 1, broken: None };
    let mut ahead = lines.read_ahead(args.from_line)?;
    // Read before the store is opened or created.
    let mut next = read(&mut ahead).await?;
    let mut target = Target::open(context).await?;
    let bar = output::progress(context, bytes, if bytes.is_some() { "loading (bytes)" } else { "loading (rows)" });
    let mut report = Report::default();
    let (end, last) = loop {
        let Batch { first, last, read: bytes_read, lines } = match next {
            Read::Batch(batch) => batch,
            Read::End(lines) => break (Some(lines), 0),
        };
        let outcome = target.load(context, (lines, first), args.provided).await;
        let loaded = outcome.map_err(|error| {
            error.context(format_args!("cannot load line {first} and later ones (continue with --from-line {first})"))
        })?;
        report.add(loaded);
        bar.inc(if bytes.is_some() { bytes_read } else { last + 1 - first });
        if report.bad > BAD_LINES_MAX && !args.keep_going {
            break (None, last);
        }
        next = read(&mut ahead).await?;
    };
    target.close(context).await?;
    bar.finish_and_clear();
    tell(&report, args.format, context)?;
    match end {
        Some(lines) => verdict(&report, &lines, args.from_line),
        None => Err(CliError::data(format_args!(
            "stopped at line {last} after {} bad lines; the rows before are loaded; check the file, or use \
             --keep-going",
            report.bad
        ))),
    }
}

async fn read(ahead: &mut mpsc::Receiver<Result<Read>>) -> Result<Read> {
    ahead
        .recv()
        .await
        .unwrap_or_else(|| Err(CliError::other("cannot read the file: the reading thread ended; load the file again")))
}

fn tell(report: &Report, format: FormatArg, context: &Context) -> Result<()> {
    let mut rows = Rows::stdout(format.resolve(context), OUTCOME);
    for (table, outcomes) in &report.tables {
        for (outcome, n) in outcomes {
            rows.push(&Outcome { table, outcome, rows: *n })?;
        }
    }
    rows.finish()?;
    for (line, error) in report.bad_lines.iter().take(BAD_LINES_SHOWN) {
        context.notice(format_args!("line {line}: {error}"));
    }
    let own = report.tables.get("provided").and_then(|outcomes| outcomes.get("left_out")).copied().unwrap_or(0);
    if own > 0 {
        context.notice(format_args!(
            "{own} own CIDs of the dump were left out; add --provided to announce them from here"
        ));
    }
    Ok(())
}

fn verdict(report: &Report, lines: &Lines, from_line: u64) -> Result<()> {
    if let Some(why) = lines.broken.clone().or_else(|| lines.fault(from_line)) {
        return Err(CliError::data(format_args!(
            "cannot load all of the dump: {why}; the rows read so far are loaded; make a new dump, then load it"
        )));
    }
    if report.bad > 0 {
        return Err(CliError::data(format_args!(
            "cannot load {} bad lines, listed above; all others are loaded; correct the lines and load the file again",
            report.bad
        )));
    }
    let refused: u64 =
        report.tables.values().flatten().filter(|(outcome, _)| outcome.starts_with("refused")).map(|(_, n)| n).sum();
    if refused > 0 {
        return Err(CliError::other(format_args!(
            "cannot load {refused} rows: they were refused, as listed above; raise the limit (`dhtstore config show`) \
             or free disk space, then load again"
        )));
    }
    Ok(())
}

/// Opens the file. Returns its size too, if known.
fn open(path: &PathBuf) -> Result<(Box<dyn BufRead + Send>, Option<u64>)> {
    if path.as_os_str() == "-" {
        return Ok((Box::new(BufReader::with_capacity(1 << 20, std::io::stdin())), None));
    }
    let file = File::open(path).map_err(|error| CliError::unreadable(path, &error))?;
    let bytes = file.metadata().ok().filter(std::fs::Metadata::is_file).map(|found| found.len());
    Ok((Box::new(BufReader::with_capacity(1 << 20, file)), bytes))
}

/// Lines that are loaded together.
#[derive(Debug)]
struct Batch {
    /// Number of the first line.
    first: u64,
    /// Number of the last line.
    last: u64,
    lines: Vec<u8>,
    /// Bytes of the file that the lines took.
    read: u64,
}

/// Result of reading ahead.
enum Read {
    Batch(Batch),
    /// The end of the file, with what was seen of the dump.
    End(Box<Lines>),
}

/// Reads a dump, in batches.
struct Lines {
    input: Box<dyn BufRead + Send>,
    /// Number of the last line read.
    number: u64,
    header: Option<Header>,
    end: Option<End>,
    /// Rows since the header.
    rows: u64,
    /// Line number of the header.
    begins: u64,
    /// The fault of the first incomplete dump in the file. More dumps may follow it.
    broken: Option<String>,
}

impl Lines {
    /// Reads batches on a separate thread, one ahead of the batch that is being loaded. The thread is never joined,
    /// because it may block on a silent pipe until the process ends.
    fn read_ahead(mut self, from: u64) -> Result<mpsc::Receiver<Result<Read>>> {
        let (batches, ahead) = mpsc::channel(1);
        let run = move || loop {
            let read = match self.batch(from) {
                Ok(Some(batch)) => Ok(Read::Batch(batch)),
                Ok(None) => break drop(batches.blocking_send(Ok(Read::End(Box::new(self))))),
                Err(error) => Err(error),
            };
            let is_last = read.is_err();
            if batches.blocking_send(read).is_err() || is_last {
                break;
            }
        };
        thread::Builder::new().name("read".into()).spawn(run).context("cannot start a thread to read the file")?;
        Ok(ahead)
    }

    /// Returns the next lines, starting at line `from`; `None` at the end of the file. Exit 65 if it is not a dump.
    fn batch(&mut self, from: u64) -> Result<Option<Batch>> {
        if self.header.is_none() {
            self.read_header()?;
        }
        let lines = Vec::with_capacity(BATCH_BYTES + 4096);
        let mut batch = Batch { first: self.number + 1, last: self.number, lines, read: 0 };
        while batch.lines.len() < BATCH_BYTES {
            let start = batch.lines.len();
            let read = self.line(&mut batch.lines)?;
            if read == 0 {
                break;
            }
            batch.read += read;
            self.number += 1;
            let is_row = self.is_row(&batch.lines[start..], from);
            if self.number < from {
                batch.lines.clear();
                batch.first = self.number + 1;
            } else if !is_row {
                batch.lines.truncate(start);
                // Lines are numbered from the first one of a batch, so a batch must have no gaps.
                if start > 0 {
                    break;
                }
                batch.first = self.number + 1;
            }
        }
        batch.last = self.number;
        Ok((batch.read > 0).then_some(batch))
    }

    /// Returns whether the line just read is a row. Records the header or the end of a dump.
    fn is_row(&mut self, line: &[u8], from: u64) -> bool {
        let number = self.number;
        match Mark::read(line.strip_prefix(UTF8_MARK).unwrap_or(line)) {
            // `cat a.ndjson b.ndjson`: the next dump.
            Ok(Some(Mark::Header(_))) => {
                self.broken = self.broken.take().or_else(|| self.fault(from));
                (self.end, self.rows, self.begins) = (None, 0, number);
                false
            }
            // The rows of an unknown version cannot be read.
            Err(error) if line.starts_with(HEADER) => {
                let fault = self.broken.take().or_else(|| self.fault(from));
                self.stop(fault.unwrap_or_else(|| format!("line {number} starts a dump that cannot be read: {error}")))
            }
            _ if self.end.is_some() && line.trim_ascii().is_empty() => false,
            _ if self.end.is_some() => {
                self.stop(format!("line {number} comes after the end of a dump and does not start another"))
            }
            Ok(Some(Mark::End(end))) => {
                self.end = Some(end);
                false
            }
            // The loader reports a line that is not JSON as a bad one.
            Ok(None) | Err(_) => {
                self.rows += 1;
                true
            }
        }
    }

    /// Stops reading, and records why.
    fn stop(&mut self, why: String) -> bool {
        self.broken.get_or_insert(why);
        self.input = Box::new(io::empty());
        false
    }

    /// Returns why the current dump is incomplete, if it is. The number of its rows is not checked if the load began in
    /// the middle of it.
    fn fault(&self, from: u64) -> Option<String> {
        let begins = self.begins;
        match &self.end {
            None => Some(format!("the dump that starts at line {begins} has no end: it was cut off")),
            Some(end) if end.rows != self.rows && from <= begins => Some(format!(
                "the dump that starts at line {begins} has {} rows, but its end says {}",
                self.rows, end.rows
            )),
            Some(_) => None,
        }
    }

    fn read_header(&mut self) -> Result<()> {
        let mut line = Vec::new();
        self.line(&mut line)?;
        self.number = 1;
        if line.starts_with(UTF8_MARK) {
            line.drain(..UTF8_MARK.len());
        }
        if [GZIP, ZSTD, XZ].iter().any(|beginning| line.starts_with(beginning)) {
            return Err(CliError::data(
                "cannot load the file: it is compressed; unpack it: `gzip -dc FILE | dhtstore load -` (or zstd, xz)",
            ));
        }
        if line.starts_with(&[0xff, 0xfe]) || line.starts_with(&[0xfe, 0xff]) {
            return Err(CliError::data(
                "cannot load the file: it is in UTF-16 and must be in UTF-8; convert it: `iconv -f UTF-16 -t UTF-8`",
            ));
        }
        match Mark::read(&line) {
            Ok(Some(Mark::Header(header))) => {
                self.header = Some(header);
                Ok(())
            }
            Err(error) if line.starts_with(HEADER) => Err(CliError::data(format_args!(
                "cannot load the dump: {error}; install the version of dhtstore that wrote it, or a newer one"
            ))),
            _ if line.starts_with(br#"{"dhtstore":"backup""#) => {
                Err(CliError::data("cannot load the file: it is a backup; restore it with `dhtstore restore FILE`"))
            }
            _ => Err(CliError::data(
                "cannot load the file: it is not a dump, because its first line is not a header; make one with \
                 `dhtstore dump --format ndjson`",
            )),
        }
    }

    /// Appends a line and its line end, and returns the number of bytes read. An overlong line is cut, and so becomes a
    /// bad one.
    fn line(&mut self, lines: &mut Vec<u8>) -> Result<u64> {
        let start = lines.len();
        let read = io::Read::take(&mut self.input, MAX_LINE as u64 + 2).read_until(b'\n', lines).map_err(unreadable)?;
        let mut all = read as u64;
        if read > 0 && !lines.ends_with(b"\n") {
            if read > MAX_LINE {
                all += self.skip_line()?;
            }
            lines.push(b'\n');
        }
        // Control characters become spaces: JSON allows spaces between values, and no control characters in strings.
        lines[start..].iter_mut().filter(|byte| **byte < b' ' && **byte != b'\n').for_each(|byte| *byte = b' ');
        Ok(all)
    }

    fn skip_line(&mut self) -> Result<u64> {
        let mut skipped = 0;
        loop {
            let buffer = self.input.fill_buf().map_err(unreadable)?;
            let end = buffer.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
            let n = end.unwrap_or(buffer.len());
            let done = end.is_some() || n == 0;
            self.input.consume(n);
            skipped += n as u64;
            if done {
                return Ok(skipped);
            }
        }
    }
}

/// Reports that the dump cannot be read.
fn unreadable(error: io::Error) -> CliError {
    CliError::other(format_args!("cannot read the dump: {error}; check the file and its disk, then load it again"))
}

/// Destination of the rows.
enum Target {
    /// The running server. Each batch gets its own connection, because reading the next batch may take longer than the
    /// idle time-out of a connection.
    Running,
    /// A stopped node's directory.
    Stopped { loader: Box<Loader>, store: Store, _lock: Lock },
}

impl Target {
    async fn open(context: &Context) -> Result<Self> {
        if Server::connect_if_running(context).await?.is_some() {
            context.notice("loading into the running server");
            return Ok(Self::Running);
        }
        let config = context.config()?;
        let mut settings = config.store_settings();
        let dir = config.data_dir.clone();
        context.notice(format_args!("no server is running: loading into {}", dir.display()));
        let opened = tokio::task::spawn_blocking(move || -> Result<_> {
            let lock = Lock::acquire(&dir)?;
            if let Some(identity) = identity::load(&dir)? {
                settings.position = *Key::for_peer(&identity.public().to_peer_id()).as_bytes();
            }
            let store = Store::open(&lock, settings, SystemClock::new())?;
            store.records.wait_replayed();
            Ok((lock, store))
        });
        let (lock, store) = opened.await.map_err(CliError::other)??;
        Ok(Self::Stopped { loader: Box::new(Loader::new(store.clone())), store, _lock: lock })
    }

    /// Loads a batch. `lines` holds the text and the number of its first line.
    async fn load(&mut self, context: &Context, lines: (Vec<u8>, u64), provided: bool) -> Result<Report> {
        let (lines, first) = lines;
        match self {
            Target::Running => {
                let lines =
                    String::from_utf8(lines).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned());
                let request = Request::Load { lines, first, provided, flush: false };
                Server::connect(context).await?.ask::<Loaded>(&request, |_| Ok(())).await.map(Report::from)
            }
            Target::Stopped { loader, .. } => Ok(tokio::task::block_in_place(|| loader.load(&lines, first, provided))?),
        }
    }

    /// Writes everything to disk.
    async fn close(self, context: &Context) -> Result<()> {
        match self {
            Target::Running => {
                let request = Request::Load { lines: String::new(), first: 0, provided: false, flush: true };
                Server::connect(context).await?.ask::<Loaded>(&request, |_| Ok(())).await.map(drop)
            }
            Target::Stopped { store, .. } => Ok(store.close().await?),
        }
    }
}
