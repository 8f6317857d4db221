//! `dhtstore restore`

mod build;
mod contents;
mod fit;

use super::{
    Context,
    error::{CliError, Code, Result, ResultExt},
    output::{self, FormatArg},
};
use crate::{
    config::file::{FILE_NAME as CONFIG, Loaded},
    store::{
        StoreError,
        data_dir::staging::{self, Found},
        load::Report,
    },
};
use contents::Contents;
use serde::Serialize;
use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Arguments of `dhtstore restore`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Restores what `dhtstore backup` wrote: the peer id, the own CIDs with the times of their announcements, the routing \
tables and, if the backup has them, records of other peers that have not expired. Verifies the whole file before it \
writes anything. Never overwrites anything: the data directory must be missing or empty, so move an old one away \
first. If the restore is interrupted, repeat the command: it finishes or starts again. Until then `run` refuses the \
directory.

Stop the old node and never start it again: only one node may have a peer id.
The configuration in the backup becomes dhtstore.toml in the data directory; only --config takes precedence over it. \
A warning names each setting that does not fit this machine. Restore only backups that you trust: the checksum is not \
a signature.
Exit 65: FILE is missing, not a backup, damaged, cut off or from a later version. 73: the data directory is not empty \
or cannot be written. 75: a process uses it. 78: this version cannot use the configuration in the backup; name \
another with --config. 1: a limit of the configuration refused rows; all others are restored.

Examples:
  dhtstore restore node.backup
  dhtstore --data-dir /srv/dht restore node.backup
  age -d -i key.txt node.backup.age | dhtstore restore -
  ssh old-host dhtstore backup --records - | dhtstore restore -")]
pub struct Args {
    /// Backup to read; `-` is stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    format: FormatArg,
}

/// Contents of the restored directory, for stdout.
#[derive(Debug, Serialize)]
struct Restored<'a> {
    peer_id: &'a str,
    data_dir: &'a Path,
    backup_made: &'a str,
    files: Vec<&'static str>,
    own_cids: u64,
    routing: u64,
    providers: u64,
    values: u64,
    peers: u64,
    /// Rows left out because they have expired.
    expired: u64,
    /// Rows left out because their time is ahead of this machine's clock.
    future: u64,
    /// Rows that a limit refused.
    refused: u64,
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<()> {
    let before = context.sources().load_detailed()?;
    let dir = before.config.data_dir.as_path();
    let found = staging::look(dir).map_err(|error| match error {
        StoreError::Locked(path) => CliError::try_again(format_args!(
            "cannot restore into {}: it is in use by another process; stop that process and move the directory away, \
             or name another one with --data-dir",
            path.display()
        )),
        error => error.into(),
    })?;
    let shown = if args.file.as_os_str() == "-" { "stdin".into() } else { args.file.display().to_string() };
    let file = open(&args.file, dir, context)?;
    let contents = tokio::task::block_in_place(|| {
        let bar = output::progress(context, file.metadata().ok().map(|meta| meta.len()), "verifying (bytes)");
        contents::read(&file, &bar, |_| Ok(()))
    });
    let contents = contents.context(format_args!("cannot restore {shown}"))?;
    let loaded = effective(&contents, before.clone(), context)?;
    let report = match found {
        Found::Complete(note) => build::resume(dir, &note, &contents)?,
        Found::Nothing => build::build(dir, &file, &contents, &loaded.config, context).await?,
    };
    tell(&contents, dir, &report, args.format, context)?;
    fit::tell(&contents, dir, &before, context)?;
    verdict(&report)
}

/// Opens the file. Copies a file that cannot be read twice, such as a pipe, to an unnamed temporary file.
fn open(path: &Path, dir: &Path, context: &Context) -> Result<File> {
    let mut input: Box<dyn io::Read> = match path.as_os_str() == "-" {
        true => Box::new(io::stdin()),
        false => {
            let file = File::open(path).map_err(|error| CliError::unreadable(path, &error))?;
            let found = file.metadata().context(format_args!("cannot read {}", path.display())).code(Code::Data)?;
            if found.is_file() || found.is_dir() {
                return Ok(file);
            }
            Box::new(file)
        }
    };
    tokio::task::block_in_place(|| {
        let failed = |e: io::Error| {
            CliError::cannot_create(format_args!("cannot copy the backup to a temporary file: {e}; free disk space"))
        };
        let mut copy = spool(dir).map_err(failed)?;
        let bar = output::progress(context, None, "reading (bytes)");
        let mut buffer = vec![0; 1 << 20];
        loop {
            match input.read(&mut buffer).context(format_args!("cannot read {}", path.display())).code(Code::Data)? {
                0 => break,
                n => copy.write_all(&buffer[..n]).map_err(failed)?,
            }
            bar.inc(buffer.len() as u64);
        }
        bar.finish_and_clear();
        Ok(copy)
    })
}

/// Creates an unnamed file, if possible on the disk of the data directory, which should have space for it.
fn spool(dir: &Path) -> io::Result<File> {
    let beside = dir.ancestors().filter(|dir| dir.is_dir()).take(2);
    let file = beside.map(tempfile::tempfile_in).find_map(io::Result::ok);
    file.map_or_else(tempfile::tempfile, Ok)
}

/// Returns the configuration that the restored node will use: that of the backup if the node will look for it in the
/// data directory, or else the current one.
fn effective(contents: &Contents, before: Loaded, context: &Context) -> Result<Loaded> {
    let dir = &before.config.data_dir;
    match &contents.config {
        Some(text) if context.sources().finds_in(dir) => {
            let loaded = context.sources().load_as(&dir.join(CONFIG), text);
            loaded.map_err(|error| {
                CliError::config(format_args!(
                    "cannot restore: this version cannot use the configuration in the backup: {error}; name another \
                     one with --config FILE; nothing was restored"
                ))
            })
        }
        _ => Ok(before),
    }
}

fn tell(contents: &Contents, dir: &Path, report: &Report, format: FormatArg, context: &Context) -> Result<()> {
    let present = |table: &str| {
        let outcomes = report.tables.get(table);
        let count = |outcome: &str| outcomes.and_then(|outcomes| outcomes.get(outcome)).copied().unwrap_or(0);
        count("loaded") + count("known")
    };
    let restored = Restored {
        peer_id: &contents.header.peer_id,
        data_dir: dir,
        backup_made: &contents.header.time,
        files: contents.header.files.iter().map(|file| file.name()).collect(),
        own_cids: present("provided"),
        routing: present("routing"),
        providers: present("providers"),
        values: present("values"),
        peers: present("peers"),
        expired: report.rows("expired"),
        future: report.rows("future"),
        refused: refused(report),
    };
    output::print_object(&restored, format.resolve(context))?;
    if contents.damaged > 0 {
        context.notice(format_args!(
            "warning: the backup lacks {} places of the database that were damaged when it was made",
            contents.damaged
        ));
    }
    context.notice(format_args!(
        "the old node must not run any more: two nodes with the peer id {} would take each other's connections and \
         records; stop it, and disable its service",
        restored.peer_id
    ));
    let (here, me) = (dir.metadata().map(|meta| meta.uid()), rustix::process::geteuid().as_raw());
    if let Some(owner) = here.ok().filter(|owner| *owner != me) {
        context.notice(format_args!(
            "warning: {0} belongs to user {owner}, but the restored files belong to user {me}; run `chown -R \
             --reference={0} {0}`",
            dir.display()
        ));
    }
    if restored.own_cids > 0 {
        context.notice(
            "own CIDs are announced when they are due; if this machine has new addresses, run `dhtstore reprovide` to \
             announce them at once",
        );
    }
    Ok(())
}

/// Returns the number of rows that a limit refused.
fn refused(report: &Report) -> u64 {
    let outcomes = report.tables.values().flatten();
    outcomes.filter(|(outcome, _)| outcome.starts_with("refused")).map(|(_, rows)| rows).sum()
}

fn verdict(report: &Report) -> Result<()> {
    let future = report.rows("future");
    if future > 0 {
        return Err(CliError::other(format_args!(
            "cannot restore {future} rows: they lie ahead of this machine's clock; everything else is restored; to \
             get them, set the clock, move the data directory away, and restore again"
        )));
    }
    match refused(report) {
        0 => Ok(()),
        n => {
            let mut why: Vec<&str> = report.tables.values().flatten().map(|(outcome, _)| outcome.as_str()).collect();
            why.retain(|outcome| outcome.starts_with("refused"));
            why.sort_unstable();
            why.dedup();
            Err(CliError::other(format_args!(
                "cannot restore {n} rows: they were {}; everything else is restored; to get them, raise the limit \
                 (`dhtstore config show`), move the data directory away, and restore again",
                why.join(", ")
            )))
        }
    }
}
