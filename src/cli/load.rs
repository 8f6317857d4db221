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

/// Bytes of lines that are sent at once. With one line of the longest, and every character of them escaped, they stay
/// below what the server takes.
const BATCH_BYTES: usize = 384 << 10;
/// Bad lines after which loading stops: it is the wrong file, or badly damaged.
const BAD_LINES_MAX: u64 = 100;
/// Bad lines that are shown; the others are counted.
const BAD_LINES_SHOWN: usize = 20;

/// Arguments of `dhtstore load`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Takes what `dhtstore dump` wrote as NDJSON, of any version of the program that knows version 1 of it (docs/dump.md): into
the running server, or into a stopped node's directory. Records keep their times, and so their ends; what has expired is
left out, and what lies more than a minute in the future. What is here already with the same time or a later one stays,
and what was removed here later than it was received there stays removed: the same file may be loaded again, and a load
that was cut off is simply repeated. All limits of the configuration hold.
Own CIDs of the dump are announced from here only with --provided; those unprovided since the dump come back with it.
Saved routing tables are added to those here; a running server soon saves its own in their place.
Exit 65: the file is no dump, is of a later version, was cut off, or has bad lines (100 end it, unless --keep-going);
1: rows were refused, by the limits or the disk. Whatever could be loaded was.

Examples:
  dhtstore load all.ndjson
  ssh old-host dhtstore dump | dhtstore load -
  dhtstore load --provided all.ndjson            take over the CIDs that the other node provides")]
pub struct Args {
    /// The dump; `-` is stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Its own CIDs become own CIDs here
    #[arg(long)]
    provided: bool,
    /// Go on after any number of bad lines
    #[arg(long)]
    keep_going: bool,
    /// Begin with this line, as an earlier load said where it ended
    #[arg(long, value_name = "N", default_value_t = 1, hide_default_value = true)]
    from_line: u64,
    #[command(flatten)]
    format: FormatArg,
}

/// How files begin that are a dump in another wrapping.
const UTF8_MARK: &[u8] = "\u{feff}".as_bytes();
/// Its first byte, 0x1f, is read as a space.
const GZIP: &[u8] = &[b' ', 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const XZ: &[u8] = b"\xfd7zXZ";
/// How the first line of a dump begins, of whatever version.
const HEADER: &[u8] = br#"{"dhtstore":"dump""#;

/// What became of some rows.
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
    // Before anything is opened or created.
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
            error.context(format_args!(
                "line {first} and what follows it is not loaded (go on with --from-line {first})"
            ))
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
            "stopped at line {last} after {} bad lines; what came before is loaded; look at the file, or load it with --keep-going",
            report.bad
        ))),
    }
}

async fn read(ahead: &mut mpsc::Receiver<Result<Read>>) -> Result<Read> {
    ahead.recv().await.unwrap_or_else(|| Err(CliError::other("the file is not read any more")))
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
        context
            .notice(format_args!("{own} own CIDs of the dump were left out: with --provided this node announces them"));
    }
    Ok(())
}

fn verdict(report: &Report, lines: &Lines, from_line: u64) -> Result<()> {
    if let Some(why) = lines.broken.clone().or_else(|| lines.fault(from_line)) {
        return Err(CliError::data(format_args!("{why}; what there is of it is loaded; dump again, and load that")));
    }
    if report.bad > 0 {
        return Err(CliError::data(format_args!("{} bad lines were left out; the others are loaded", report.bad)));
    }
    let refused: u64 =
        report.tables.values().flatten().filter(|(outcome, _)| outcome.starts_with("refused")).map(|(_, n)| n).sum();
    if refused > 0 {
        return Err(CliError::other(format_args!(
            "{refused} rows were refused, see above; if a limit did, raise it (`dhtstore config show records`) and load again"
        )));
    }
    Ok(())
}

/// The file, and its size if that is known.
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
    /// Numbers of the lines.
    first: u64,
    last: u64,
    lines: Vec<u8>,
    /// Bytes of the file that they took.
    read: u64,
}

/// What was read.
enum Read {
    Batch(Batch),
    /// There is no more; what was seen of the dump.
    End(Box<Lines>),
}

/// Reads a dump, in batches.
struct Lines {
    input: Box<dyn BufRead + Send>,
    /// Of the last line that was read.
    number: u64,
    header: Option<Header>,
    end: Option<End>,
    /// Lines between header and end.
    rows: u64,
    /// The line of the header.
    begins: u64,
    /// What is wrong with the first dump of the file that is not whole; others may follow it.
    broken: Option<String>,
}

impl Lines {
    /// Reads batches on a thread of its own, one ahead, while another is loaded. Nobody waits for the thread: at the end
    /// of the process it may stand before a pipe that says nothing.
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
        thread::Builder::new().name("read".into()).spawn(run).context("cannot start a thread")?;
        Ok(ahead)
    }

    /// The next lines from `from` on. `None` at the end, or where the file ends without one. Exit 65 if it is no dump.
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
                // Lines are numbered from the first of a batch: none is left out within it.
                if start > 0 {
                    break;
                }
                batch.first = self.number + 1;
            }
        }
        batch.last = self.number;
        Ok((batch.read > 0).then_some(batch))
    }

    /// Whether the last line that was read is a row. Takes the beginning and the end of a dump in.
    fn is_row(&mut self, line: &[u8], from: u64) -> bool {
        let number = self.number;
        match Mark::read(line.strip_prefix(UTF8_MARK).unwrap_or(line)) {
            // `cat a.ndjson b.ndjson`: the next dump.
            Ok(Some(Mark::Header(_))) => {
                self.broken = self.broken.take().or_else(|| self.fault(from));
                (self.end, self.rows, self.begins) = (None, 0, number);
                false
            }
            // What its rows mean only another version knows.
            Err(error) if line.starts_with(HEADER) => {
                let fault = self.broken.take().or_else(|| self.fault(from));
                self.stop(fault.unwrap_or_else(|| format!("line {number} begins a dump that cannot be read: {error}")))
            }
            _ if self.end.is_some() && line.trim_ascii().is_empty() => false,
            _ if self.end.is_some() => {
                self.stop(format!("line {number} stands behind the end of a dump and begins no other"))
            }
            Ok(Some(Mark::End(end))) => {
                self.end = Some(end);
                false
            }
            // In a line that is none the loader finds no row either.
            Ok(None) | Err(_) => {
                self.rows += 1;
                true
            }
        }
    }

    /// Reads no further.
    fn stop(&mut self, why: String) -> bool {
        self.broken.get_or_insert(why);
        self.input = Box::new(io::empty());
        false
    }

    /// What keeps the present dump from being whole. Its rows are not counted where the load began within it.
    fn fault(&self, from: u64) -> Option<String> {
        let begins = self.begins;
        match &self.end {
            None => Some(format!("the dump that begins at line {begins} has no end: it was cut off")),
            Some(end) if end.rows != self.rows && from <= begins => Some(format!(
                "the dump that begins at line {begins} has {} rows, and its end says {}",
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
                "this is compressed; unpack it on the way: `gzip -dc FILE | dhtstore load -` (or zstd, xz)",
            ));
        }
        if line.starts_with(&[0xff, 0xfe]) || line.starts_with(&[0xfe, 0xff]) {
            return Err(CliError::data(
                "this is text in UTF-16, and a dump is in UTF-8; convert it: `iconv -f UTF-16 -t UTF-8`",
            ));
        }
        match Mark::read(&line) {
            Ok(Some(Mark::Header(header))) => {
                self.header = Some(header);
                Ok(())
            }
            Err(error) if line.starts_with(HEADER) => {
                Err(CliError::data(format_args!("{error}; install the version that wrote it, or a newer one")))
            }
            _ if line.starts_with(br#"{"dhtstore":"backup""#) => {
                Err(CliError::data("this is a backup; make a data directory of it: `dhtstore restore FILE`"))
            }
            _ => Err(CliError::data(
                "this is no dump: its first line is not the header that `dhtstore dump --format ndjson` writes",
            )),
        }
    }

    /// Appends a line and its end, cut where it is too long (then it is a bad one). How many bytes were read.
    fn line(&mut self, lines: &mut Vec<u8>) -> Result<u64> {
        let start = lines.len();
        let read = io::Read::take(&mut self.input, MAX_LINE as u64 + 2).read_until(b'\n', lines)?;
        let mut all = read as u64;
        if read > 0 && !lines.ends_with(b"\n") {
            if read > MAX_LINE {
                all += self.skip_line()?;
            }
            lines.push(b'\n');
        }
        // Whitespace in JSON; in the text of strings it has no place.
        lines[start..].iter_mut().filter(|byte| **byte < b' ' && **byte != b'\n').for_each(|byte| *byte = b' ');
        Ok(all)
    }

    fn skip_line(&mut self) -> Result<u64> {
        let mut skipped = 0;
        loop {
            let buffer = self.input.fill_buf()?;
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

/// Where rows go.
enum Target {
    /// The running server; a connection for each batch, since reading the next may take longer than it waits.
    Running,
    /// A stopped node's directory.
    Stopped { loader: Box<Loader>, store: Store, _lock: Lock },
}

impl Target {
    async fn open(context: &Context) -> Result<Self> {
        if Server::connect_if_running(context).await?.is_some() {
            context.notice("into the running server");
            return Ok(Self::Running);
        }
        let config = context.config()?;
        let mut settings = config.store_settings();
        let dir = config.data_dir.clone();
        context.notice(format_args!("no server is running: into {}", dir.display()));
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

    /// `lines` have the text and the number of the first.
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

    /// Everything to disk.
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
