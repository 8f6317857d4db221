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
Makes a data directory of what `dhtstore backup` wrote: the same peer id, own CIDs with when they were announced, the
routing tables, and what others announced, if that is in the backup and still lives. The whole file is verified before
anything is written. The directory must be empty or not there: nothing is ever overwritten, so move an old one away first.
Cut off at any point, the same command begins anew or finishes, and until then `run` refuses the directory.

The configuration of the backup becomes dhtstore.toml in the data directory, where it is found before others but --config;
what of it does not fit this machine is told. Trust who wrote the backup: a checksum is no signature.
The node that the backup is of must not run any more: one peer id, one node.
Exit 65: FILE is no backup, is damaged, was cut off, is missing or of a later version. 73: the directory is not empty, or
cannot be written. 75: a process has it. 78: the configuration in the backup is not one of this version; name another
with --config. 1: rows were refused by a limit of the configuration; all others are there.

Examples:
  dhtstore restore node.backup
  dhtstore --data-dir /srv/dht restore node.backup
  age -d -i key.txt node.backup.age | dhtstore restore -
  ssh old-host dhtstore backup --records - | dhtstore restore -")]
pub struct Args {
    /// The backup; `-` is stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    format: FormatArg,
}

/// What was restored.
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
    /// Left out, since they have ended.
    expired: u64,
    /// Left out, since they lie ahead of this machine's clock.
    future: u64,
    /// Left out by a limit.
    refused: u64,
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<()> {
    let before = context.sources().load_detailed()?;
    let dir = before.config.data_dir.as_path();
    let found = staging::look(dir).map_err(|error| match error {
        StoreError::Locked(_) => CliError::try_again(format_args!(
            "{error}, whose data stays; to restore in its place, stop it and move the directory away, or name another one with --data-dir"
        )),
        error => error.into(),
    })?;
    let shown = if args.file.as_os_str() == "-" { "stdin".into() } else { args.file.display().to_string() };
    let file = open(&args.file, dir, context)?;
    let contents = tokio::task::block_in_place(|| {
        let bar = output::progress(context, file.metadata().ok().map(|meta| meta.len()), "verifying (bytes)");
        contents::read(&file, &bar, |_| Ok(()))
    });
    let contents = contents.context(&shown)?;
    let loaded = effective(&contents, before.clone(), context)?;
    let report = match found {
        Found::Complete(note) => build::resume(dir, &note, &contents)?,
        Found::Nothing => build::build(dir, &file, &contents, &loaded.config, context).await?,
    };
    tell(&contents, dir, &report, args.format, context)?;
    fit::tell(&contents, dir, &before, context)?;
    verdict(&report)
}

/// The file, and if it cannot be read twice a copy of it that has no name.
fn open(path: &Path, dir: &Path, context: &Context) -> Result<File> {
    let mut input: Box<dyn io::Read> = match path.as_os_str() == "-" {
        true => Box::new(io::stdin()),
        false => {
            let file = File::open(path).map_err(|error| CliError::unreadable(path, &error))?;
            let found = file.metadata().context(path.display()).code(Code::Data)?;
            if found.is_file() || found.is_dir() {
                return Ok(file);
            }
            Box::new(file)
        }
    };
    tokio::task::block_in_place(|| {
        let failed =
            |e: io::Error| CliError::cannot_create(format_args!("cannot keep a copy of what is piped in: {e}"));
        let mut copy = spool(dir).map_err(failed)?;
        let bar = output::progress(context, None, "reading (bytes)");
        let mut buffer = vec![0; 1 << 20];
        loop {
            match input.read(&mut buffer).context(path.display()).code(Code::Data)? {
                0 => break,
                n => copy.write_all(&buffer[..n]).map_err(failed)?,
            }
            bar.inc(buffer.len() as u64);
        }
        bar.finish_and_clear();
        Ok(copy)
    })
}

/// A file without a name, where the data will be if that can be, since there should be space.
fn spool(dir: &Path) -> io::Result<File> {
    let beside = dir.ancestors().filter(|dir| dir.is_dir()).take(2);
    let file = beside.map(tempfile::tempfile_in).find_map(io::Result::ok);
    file.map_or_else(tempfile::tempfile, Ok)
}

/// The configuration that the node will have: that of the backup if it will be found, else the one that is found now.
fn effective(contents: &Contents, before: Loaded, context: &Context) -> Result<Loaded> {
    let dir = &before.config.data_dir;
    match &contents.config {
        Some(text) if context.sources().finds_in(dir) => {
            let loaded = context.sources().load_as(&dir.join(CONFIG), text);
            loaded.map_err(|error| {
                CliError::config(format_args!(
                    "nothing was restored, since the configuration in the backup is not one of this version: {error}; to use another one, name it with --config FILE"
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
            "warning: {} places of the database were damaged when the backup was made, and are not in it",
            contents.damaged
        ));
    }
    context.notice(format_args!(
        "the node that this is a backup of must not run any more: two nodes with the peer id {} would take each other's \
         connections and records. Stop it, and see to it that it is not started again",
        restored.peer_id
    ));
    let (here, me) = (dir.metadata().map(|meta| meta.uid()), rustix::process::geteuid().as_raw());
    if let Some(owner) = here.ok().filter(|owner| *owner != me) {
        context.notice(format_args!(
            "warning: {0} belongs to user {owner}, and what was restored to user {me}: chown -R --reference={0} {0}",
            dir.display()
        ));
    }
    if restored.own_cids > 0 {
        context.notice(
            "own CIDs are announced when they are due; if this machine has other addresses than the old one, `dhtstore \
             reprovide` announces them at once",
        );
    }
    Ok(())
}

/// Rows that a limit refused.
fn refused(report: &Report) -> u64 {
    let outcomes = report.tables.values().flatten();
    outcomes.filter(|(outcome, _)| outcome.starts_with("refused")).map(|(_, rows)| rows).sum()
}

fn verdict(report: &Report) -> Result<()> {
    let future = report.rows("future");
    if future > 0 {
        return Err(CliError::other(format_args!(
            "{future} rows lie ahead of this machine's clock and were left out; all else is restored. Set the clock, move the data directory away, and restore again"
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
                "{n} rows were {}; all else is restored. To have them, raise the limit (`dhtstore config show records`), move the data directory away, and restore again",
                why.join(", ")
            )))
        }
    }
}
