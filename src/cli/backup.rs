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

/// Bytes that are collected before a write.
const BUFFER_BYTES: usize = 256 << 10;

/// After a signal, until the process ends wherever it is.
const END_WITHIN: Duration = Duration::from_secs(2);
const ENDED: &str = "ended by a signal; no backup was made";

/// The small files, in the order in which they are written.
type Files = Vec<(FileName, Vec<u8>)>;

/// Arguments of `dhtstore backup`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
One file with all that makes the node what it is: identity (the peer id), swarm.key, the configuration file in use, own
CIDs with when they were announced and how many servers confirmed, and the routing tables, by which the node finds its
network again. --records adds what others announced and put, with the times: it ends when it would have ended here.
Of a running node, or of a stopped one, of which a copy is read. The format is in docs/backup.md; `restore` reads it.

The file holds the private key and nothing encrypts it: who has it can be this node. It is for its owner only (0600),
is there as a whole or not at all, and takes the place of another file only with --force.
Exit 65: rows of the database were damaged; the backup has all others. 66: no database. 73: FILE exists, or cannot be
written. 75: a process has the directory and does not answer.

Examples:
  dhtstore backup node.backup
  dhtstore backup --records /mnt/usb/node.backup     with what others announced
  dhtstore backup - | age -r age1… > node.backup.age encrypted
  ssh old-host dhtstore backup --records - | dhtstore restore -")]
pub struct Args {
    /// Where to write it; `-` is stdout
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Also what others announced and put: provider records, the addresses of their peers, values
    #[arg(long)]
    records: bool,
    /// Take the place of a file that is there
    #[arg(long)]
    force: bool,
}

/// What was written.
struct Written {
    peer_id: String,
    files: Vec<&'static str>,
    summary: Summary,
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<()> {
    let is_stdout = args.file.as_os_str() == "-";
    if is_stdout && context.stdout_is_terminal {
        return Err(CliError::usage("a backup holds the private key: write it to a file or a pipe, not to a terminal"));
    }
    if !is_stdout {
        refuse_existing(&args.file, args.force)?;
    }
    let loaded = context.sources().load_detailed()?;
    let mut server = Server::connect_if_running(context).await?;
    match &mut server {
        // What was learnt since the last snapshot should not be missing.
        Some(running) => {
            if let Err(error) = running.ask::<Option<String>>(&Request::SaveRouting, |_| Ok(())).await {
                context.notice(format_args!("the routing tables are those of the last snapshot: {error}"));
                // A server of an older version does not know the request, and has hung up.
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

/// The highest sequence number of each own IPNS name.
async fn sequences(context: &Context) -> Result<BTreeMap<String, u64>> {
    if let Some(mut server) = Server::connect_if_running(context).await? {
        let stat: Stat = server.ask(&Request::Stat, |_| Ok(())).await?;
        return Ok(stat.ipns_sequences);
    }
    let dir = context.data_dir()?;
    let kept = tokio::task::block_in_place(|| check::announced(dir))?.sequences;
    Ok(kept.into_iter().map(|(peer, sequence)| (peer.to_string(), sequence)).collect())
}

/// Exit 73 for what is there, unless it may be replaced.
fn refuse_existing(path: &Path, force: bool) -> Result<()> {
    let path_shown = path.display();
    match path.symlink_metadata() {
        Err(_) => Ok(()),
        Ok(found) if !force => Err(CliError::cannot_create(format_args!(
            "{path_shown} exists ({} bytes) and is not overwritten: choose another name, or replace it with --force",
            found.len()
        ))),
        Ok(found) if found.is_file() => Ok(()),
        Ok(_) => Err(CliError::cannot_create(format_args!(
            "{path_shown} is no plain file, and is not replaced; choose another name, or `-` and a pipe"
        ))),
    }
}

/// Peer id, and the small files.
fn gather(loaded: &Loaded) -> Result<(String, Files)> {
    let config = &loaded.config;
    let path = identity::path(&config.data_dir);
    if !is_present(&path) {
        return Err(CliError::data(format_args!(
            "there is no identity.key in {}, and a backup without it would be of no use; is it a credential of the \
             service? then set CREDENTIALS_DIRECTORY to its directory (/run/credentials/dhtstore.service)",
            config.data_dir.display()
        )));
    }
    let identity = Identity::load(&path)?;
    let mut files = vec![(FileName::Identity, identity.protobuf().to_vec())];
    if let Some(path) = &config.swarm_key {
        files.push((FileName::SwarmKey, SwarmKey::load(path)?.to_file().into_bytes()));
    }
    // /dev/null and pipes are ways to say that there is none.
    if let Some(path) = loaded.file.as_ref().filter(|path| path.is_file()) {
        let mut text = Vec::new();
        let file = File::open(path).context(path.display()).code(Code::Config)?;
        file.take(FileName::Config.max_bytes()).read_to_end(&mut text).context(path.display()).code(Code::Config)?;
        files.push((FileName::Config, text));
    }
    Ok((identity.keypair.public().to_peer_id().to_string(), files))
}

/// Written beside, synced, and only then under its name.
async fn to_file(source: &mut Source<'_>, args: &Args) -> Result<Written> {
    let path = &args.file;
    let failed = |error: io::Error| {
        let next = match error.kind() {
            io::ErrorKind::StorageFull => "; free some space, or write it elsewhere",
            _ => "",
        };
        CliError::cannot_create(format_args!("cannot write {}: {error}{next}; nothing was left there", path.display()))
    };
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !dir.is_dir() {
        return Err(CliError::cannot_create(format_args!("there is no directory {}; make it first", dir.display())));
    }
    // 0600 from the start.
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
    // Not everybody may open the directory.
    let _ = File::open(dir).and_then(|dir| dir.sync_all());
    Ok(written)
}

/// A private key should not be left about when somebody has had enough of waiting: at a signal the file is removed, and
/// `ended` set; who does not see that in time (a large copy is under way) is ended.
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

/// What is backed up.
struct Source<'c> {
    context: &'c Context,
    server: Option<Server>,
    header: Header,
    files: Files,
    /// A signal came.
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
                        "the server runs as {}, and identity.key is that of {}; restart it, or put the right file in place",
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

/// Tells what is in it, and what is not.
fn finish(written: Written, what: &str, loaded: &Loaded, args: &Args, context: &Context) -> Result<()> {
    let rows = |table: Table| written.summary.tables.get(table.name()).map_or(0, |table| table.rows);
    let records = match args.records {
        true => format!(
            ", {} provider records, {} values, {} peers of the address book",
            rows(Table::Providers),
            rows(Table::Values),
            rows(Table::Peers)
        ),
        false => String::new(),
    };
    context.notice(format_args!(
        "{what}: {}, {} own CIDs, {} peers of routing tables{records}; peer id {}",
        written.files.join(", "),
        rows(Table::Provided),
        rows(Table::Routing),
        written.peer_id
    ));
    let mode = if args.file.as_os_str() == "-" { "" } else { " (it is readable for you only: mode 0600)" };
    context.notice(format_args!(
        "it holds the private key of this node, not encrypted: keep it where you would keep a key{mode}"
    ));
    if !args.records {
        context.notice("what others announced is not in it: with --records it is");
    }
    let elsewhere: Vec<String> = loaded
        .origins
        .iter()
        .filter(|(key, origin)| *key != "data_dir" && matches!(origin, Origin::Environment(_) | Origin::Flag(_)))
        .map(|(key, origin)| format!("{key} ({origin})"))
        .collect();
    if !elsewhere.is_empty() {
        context.notice(format_args!(
            "warning: settings that are in no file are not in it either: {}; write them into {}",
            elsewhere.join(", "),
            crate::config::file::FILE_NAME
        ));
    }
    match written.summary.damaged {
        0 => Ok(()),
        n => Err(CliError::data(format_args!(
            "{n} places of the database are damaged and so not in the backup, which has all others; `dhtstore run` sets damage aside and recovers what it can: back up again after it"
        ))),
    }
}
