//! `dhtstore backup`

use super::{
    Context,
    ask::Server,
    dump::{self, Damaged, Piece, What},
    error::{CliError, Code, Result, ResultExt},
    output,
};
use crate::{
    backup::{FileName, Header, VERSION, Writer},
    clock::{Clock, SystemClock},
    config::file::{Loaded, Origin},
    control::protocol::{Request, Stat},
    files::is_present,
    store::{
        check,
        dump::{End, Filter, Summary, Table},
    },
    transport::{
        identity::{self, Identity},
        swarm_key::SwarmKey,
    },
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tempfile::NamedTempFile;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};

/// Size of the write buffer, in bytes.
const BUFFER_BYTES: usize = 256 << 10;

/// Maximum time between a signal and the exit of the process, even if work is still under way.
const END_WITHIN: Duration = Duration::from_secs(2);
const ENDED: &str = "cannot write the backup: a signal ended it; run the command again";

/// The small files, in the order in which they are written.
type Files = Vec<(FileName, Vec<u8>)>;

/// Arguments of `dhtstore backup`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The backup holds the identity (the peer id), swarm.key, the configuration file in use, the own CIDs, and the routing \
tables, with which the node finds its network again. Own CIDs keep the time of their last announcement and the number \
of servers that confirmed it. --records adds the provider records and values of other peers. They keep their times, \
so they expire when they would have expired here. `dhtstore restore` reads the backup; docs/backup.md describes the \
format.

The node may run or be stopped; the backup of a stopped node reads a copy of its databases.
The file holds the private key, unencrypted: anyone who has it can act as this node. Only its owner can read it (mode \
0600). FILE appears once it is complete. An existing file is replaced only with --force.
Exit 65: rows of the database were damaged; the backup has all others. 66: no database. 73: FILE exists or cannot be \
written. 75: a process uses the data directory and does not answer.

Examples:
  dhtstore backup node.backup
  dhtstore backup --records /mnt/usb/node.backup        also records of other peers
  dhtstore backup - | age -r age1… > node.backup.age    encrypted
  ssh old-host dhtstore backup --records - | dhtstore restore -")]
pub struct Args {
    /// File to write; `-` is stdout
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Add the records of other peers: provider records, values, peer addresses
    #[arg(long)]
    records: bool,
    /// Replace FILE if it exists
    #[arg(long)]
    force: bool,
}

/// Contents of the backup, for the report.
struct Written {
    peer_id: String,
    files: Vec<&'static str>,
    summary: Summary,
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<()> {
    let is_stdout = args.file.as_os_str() == "-";
    if is_stdout && context.stdout_is_terminal {
        return Err(CliError::usage(
            "cannot write a backup to a terminal: it holds the private key; name a file, or pipe it",
        ));
    }
    if !is_stdout {
        refuse_existing(&args.file, args.force)?;
    }
    let loaded = context.sources().load_detailed()?;
    let mut server = Server::connect_if_running(context).await?;
    match &mut server {
        // The backup must include the peers learnt since the last snapshot.
        Some(running) => {
            if let Err(error) = running.ask::<Option<String>>(&Request::SaveRouting, |_| Ok(())).await {
                context.notice(format_args!(
                    "warning: cannot save the routing tables ({error}); the backup has those saved last"
                ));
                // A server of an older version does not know the request and closes the connection.
                server = Some(Server::connect(context).await?);
            }
        }
        None => dump::not_in_use(context.config()?)?,
    }
    let (peer_id, files) = gather(&loaded)?;
    let ipns_sequences = sequences(context).await?;
    let header = Header {
        dhtstore: "backup".into(),
        version: VERSION,
        program: env!("CARGO_PKG_VERSION").into(),
        peer_id,
        time: SystemClock::new().wall().to_string(),
        files: files.iter().map(|(file, _)| *file).collect(),
        records: args.records,
        ipns_sequences,
    };
    let mut source = Source { context, server, header, files, ended: Arc::default() };
    if is_stdout {
        let out = BufWriter::with_capacity(BUFFER_BYTES, io::stdout());
        let written = source.write(out, CliError::from).await?;
        return finish(written, "the backup", &loaded, &args, context);
    }
    let written = to_file(&mut source, &args).await?;
    finish(written, &args.file.display().to_string(), &loaded, &args, context)
}

/// Returns the highest sequence number of each own IPNS name.
async fn sequences(context: &Context) -> Result<BTreeMap<String, u64>> {
    if let Some(mut server) = Server::connect_if_running(context).await? {
        let stat: Stat = server.ask(&Request::Stat, |_| Ok(())).await?;
        return Ok(stat.ipns_sequences);
    }
    let dir = context.data_dir()?;
    let kept = tokio::task::block_in_place(|| check::announced(dir))?.sequences;
    Ok(kept.into_iter().map(|(peer, sequence)| (peer.to_string(), sequence)).collect())
}

/// Refuses an existing path with exit 73, unless it is a file and `force` is set.
fn refuse_existing(path: &Path, force: bool) -> Result<()> {
    let path_shown = path.display();
    match path.symlink_metadata() {
        Err(_) => Ok(()),
        Ok(found) if !force => Err(CliError::cannot_create(format_args!(
            "cannot write {path_shown}: it exists ({} bytes); choose another name, or replace it with --force",
            found.len()
        ))),
        Ok(found) if found.is_file() => Ok(()),
        Ok(_) => Err(CliError::cannot_create(format_args!(
            "cannot replace {path_shown}: it is not a plain file; choose another name, or write to a pipe with `-`"
        ))),
    }
}

/// Returns the peer id and the small files.
fn gather(loaded: &Loaded) -> Result<(String, Files)> {
    let config = &loaded.config;
    let path = identity::path(&config.data_dir);
    if !is_present(&path) {
        return Err(CliError::data(format_args!(
            "cannot back up {}: it has no identity.key; if the service gets the key as a credential, set \
             CREDENTIALS_DIRECTORY to its directory (/run/credentials/dhtstore.service)",
            config.data_dir.display()
        )));
    }
    let identity = Identity::load(&path)?;
    let mut files = vec![(FileName::Identity, identity.protobuf().to_vec())];
    if let Some(path) = &config.swarm_key {
        files.push((FileName::SwarmKey, SwarmKey::load(path)?.to_file().into_bytes()));
    }
    // `--config /dev/null` and pipes mean that there is no file to back up.
    if let Some(path) = loaded.file.as_ref().filter(|path| path.is_file()) {
        let mut text = Vec::new();
        let file = File::open(path).context(format_args!("cannot read {}", path.display())).code(Code::Config)?;
        let read = file.take(FileName::Config.max_bytes()).read_to_end(&mut text);
        read.context(format_args!("cannot read {}", path.display())).code(Code::Config)?;
        files.push((FileName::Config, text));
    }
    Ok((identity.keypair.public().to_peer_id().to_string(), files))
}

/// Writes the backup to a temporary file in the same directory, syncs it, then renames it.
async fn to_file(source: &mut Source<'_>, args: &Args) -> Result<Written> {
    let path = &args.file;
    let failed = |error: io::Error| {
        let next = match error.kind() {
            io::ErrorKind::StorageFull => "free some space, or write to another disk",
            io::ErrorKind::PermissionDenied => "choose a directory that you can write to",
            _ => "choose another place",
        };
        CliError::cannot_create(format_args!("cannot write {}: {error}; {next}", path.display()))
    };
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !dir.is_dir() {
        return Err(CliError::cannot_create(format_args!(
            "cannot write {}: there is no directory {}; create it first",
            path.display(),
            dir.display()
        )));
    }
    // The temporary file has mode 0600 from the start.
    let beside = tempfile::Builder::new().prefix(".dhtstore-backup-").tempfile_in(dir).map_err(failed)?;
    let guard = remove_when_ended(&beside, Arc::clone(&source.ended));
    let written = source.write(BufWriter::with_capacity(BUFFER_BYTES, beside.as_file()), failed).await;
    guard.abort();
    let written = written?;
    beside.as_file().sync_all().map_err(failed)?;
    match args.force {
        true => beside.persist(path).map_err(|e| failed(e.error))?,
        false => beside.persist_noclobber(path).map_err(|e| failed(e.error))?,
    };
    // The user may lack the right to open the directory, so a failure is ignored.
    let _ = File::open(dir).and_then(|dir| dir.sync_all());
    Ok(written)
}

/// On a signal, sets `ended` and removes the unfinished file, so that no private key stays behind. If the process still
/// runs after [`END_WITHIN`], for example because it copies a large database, ends the process.
fn remove_when_ended(beside: &NamedTempFile, ended: Arc<AtomicBool>) -> JoinHandle<()> {
    let path = beside.path().to_owned();
    let signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    tokio::spawn(async move {
        let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = signals else { return };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        let _ = fs::remove_file(&path);
        ended.store(true, Ordering::Relaxed);
        tokio::time::sleep(END_WITHIN).await;
        let _ = writeln!(io::stderr(), "error: {ENDED}");
        std::process::exit(Code::Other as i32);
    })
}

/// Source of a backup: the header, the small files, and the server if it runs.
struct Source<'c> {
    context: &'c Context,
    server: Option<Server>,
    header: Header,
    files: Files,
    /// Set once a signal has arrived.
    ended: Arc<AtomicBool>,
}

impl Source<'_> {
    async fn write<W: Write>(&mut self, out: W, failed: impl Fn(io::Error) -> CliError) -> Result<Written> {
        let mut tables = vec![Table::Provided, Table::Routing];
        if self.header.records {
            tables.extend([Table::Providers, Table::Values, Table::Peers]);
        }
        let filter = Filter { tables, ..Filter::default() };
        let bar = output::progress(self.context, None, "backing up (bytes)");
        let mut damaged = Damaged::default();
        let mut writer = Writer::begin(out, &self.header, &self.files).map_err(&failed)?;
        let each = |piece: Piece<'_>| {
            if self.ended.load(Ordering::Relaxed) {
                return Err(CliError::other(ENDED));
            }
            damaged.look(&piece, self.context);
            match piece {
                Piece::Header(dump) if dump.peer_id.as_ref().is_some_and(|peer| *peer != self.header.peer_id) => {
                    Err(CliError::data(format_args!(
                        "cannot back up: the server runs as {}, but identity.key holds {}; restart the server, or put \
                         the right file in place",
                        dump.peer_id.unwrap_or_default(),
                        self.header.peer_id
                    )))
                }
                Piece::Header(dump) => writer.line(&dump).map_err(&failed),
                Piece::Rows(lines) => {
                    bar.inc(lines.len() as u64);
                    writer.lines(lines).map_err(&failed)
                }
                Piece::Damaged { .. } => Ok(()),
            }
        };
        let summary = dump::tell(self.context, self.server.take(), filter, What::Rows, false, each).await?;
        writer.line(&End::new(&summary)).map_err(&failed)?;
        writer.finish().map_err(&failed)?;
        bar.finish_and_clear();
        let files = self.files.iter().map(|(file, _)| file.name()).collect();
        Ok(Written { peer_id: self.header.peer_id.clone(), files, summary })
    }
}

/// Reports what is in the backup and what is missing from it.
fn finish(written: Written, what: &str, loaded: &Loaded, args: &Args, context: &Context) -> Result<()> {
    let rows = |table: Table| written.summary.tables.get(table.name()).map_or(0, |table| table.rows);
    let records = match args.records {
        true => format!(
            ", {} provider records, {} values, {} peer addresses",
            rows(Table::Providers),
            rows(Table::Values),
            rows(Table::Peers)
        ),
        false => String::new(),
    };
    context.notice(format_args!(
        "{what}: {}, {} own CIDs, {} routing table entries{records}; peer id {}",
        written.files.join(", "),
        rows(Table::Provided),
        rows(Table::Routing),
        written.peer_id
    ));
    let mode = if args.file.as_os_str() == "-" { "" } else { "; only you can read it (mode 0600)" };
    context
        .notice(format_args!("it holds the private key of this node, unencrypted: keep it as safe as the key{mode}"));
    if !args.records {
        context.notice("provider records are not included; add --records to include them");
    }
    let elsewhere: Vec<String> = loaded
        .origins
        .iter()
        .filter(|(key, origin)| *key != "data_dir" && matches!(origin, Origin::Environment(_) | Origin::Flag(_)))
        .map(|(key, origin)| format!("{key} ({origin})"))
        .collect();
    if !elsewhere.is_empty() {
        context.notice(format_args!(
            "warning: settings from the environment and from flags are not included: {}; write them into {}",
            elsewhere.join(", "),
            crate::config::file::FILE_NAME
        ));
    }
    match written.summary.damaged {
        0 => Ok(()),
        n => Err(CliError::data(format_args!(
            "cannot back up {n} damaged places of the database; the backup has everything else; start the node once \
             with `dhtstore run`, which recovers what it can, then back up again"
        ))),
    }
}
