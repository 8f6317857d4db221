//! `dhtstore check`

use super::{
    Context,
    ask::Server,
    dump,
    error::{CliError, Result},
    output::{FormatArg, Rows, Schema},
};
use crate::{
    clock::{Clock, SystemClock},
    control::protocol::{Checked, Level, Request, Stat},
    store::check::{self, Announced},
    transport::{identity, swarm_key},
};

/// Arguments of `dhtstore check`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Changes nothing in the data directory. Of a stopped node it reads a copy of the databases and verifies:
- the log: every chunk with its checksum, entries and peers; its segments byte by byte; its floor
- values with their signatures
- own CIDs against their count; their exports and journals, frame by frame
- identity, access rights and configuration
Of a running server it shows what the server has found since its start, and verifies the files outside the databases.

Exit 65: something is damaged; the column `next` says what to do. 73: this user may not read a file; run the command \
as the owner of the directory. 1: the disk did not return a file, and nothing else is damaged.

Examples:
  dhtstore check
  dhtstore check --format ndjson | grep -v '\"ok\"'")]
pub struct Args {
    #[command(flatten)]
    format: FormatArg,
}

const FINDING: Schema = Schema { columns: &["level", "place", "found", "next"], id: "place" };

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<()> {
    let config = context.config()?;
    let mut rows = Rows::stdout(args.format.resolve(context), FINDING);
    let (mut damaged, mut unread) = (0u64, 0u64);
    let mut tell = |finding: Checked| {
        damaged += u64::from(finding.level == Level::Damaged);
        unread += u64::from(finding.level == Level::Unread);
        rows.push(&finding)
    };
    let announced = match Server::connect_if_running(context).await? {
        Some(mut server) => {
            context.notice("checked what a running server allows; stop it for a full check");
            server.rows(&Request::Check, &mut tell).await?;
            let stat: Stat = Server::connect(context).await?.ask(&Request::Stat, |_| Ok(())).await?;
            Announced { own: stat.store.provided, peer: stat.peer.parse().ok(), ..Announced::default() }
        }
        None => {
            dump::not_in_use(config)?;
            let (ttl, now) = (config.records.ttl, SystemClock::new().wall());
            let found = tokio::task::block_in_place(|| check::stopped(&config.data_dir, ttl, now))?;
            found.into_iter().map(Checked::from).try_for_each(&mut tell)?;
            tokio::task::block_in_place(|| check::announced(&config.data_dir))?
        }
    };
    secrets(&config.data_dir, &announced).into_iter().try_for_each(&mut tell)?;
    rows.finish()?;
    match (damaged, unread) {
        (0, 0) => Ok(()),
        (0, n) => Err(CliError::other(format_args!(
            "cannot read {n} places; look for disk errors (`dmesg`), then run `dhtstore check` again"
        ))),
        (n, _) => Err(CliError::data(format_args!(
            "found damage in {n} places; the column `next` says what to do about each"
        ))),
    }
}

/// Checks the identity and the swarm key. Compares the identity with the peer id that own CIDs are announced as.
fn secrets(dir: &std::path::Path, announced: &Announced) -> Vec<Checked> {
    let finding = |level, place: &str, found: String, next: Option<&str>| Checked {
        level,
        place: place.into(),
        found,
        next: next.map(str::to_owned),
    };
    let mut findings = vec![match identity::load(dir) {
        Ok(Some(keypair)) => {
            let peer = keypair.public().to_peer_id();
            match announced.peer.filter(|before| *before != peer && announced.own > 0) {
                None => finding(Level::Ok, "identity.key", peer.to_string(), None),
                Some(before) => {
                    let found = format!("{peer}, but {} own CIDs are announced as {before}", announced.own);
                    let next =
                        "the next start announces them all again; to keep the old peer id, put the old file back";
                    finding(Level::Note, "identity.key", found, Some(next))
                }
            }
        }
        Ok(None) if announced.own > 0 => {
            let name = announced.peer.map(|peer| format!(" as {peer}")).unwrap_or_default();
            let found = format!("is missing, but {} own CIDs are announced{name}", announced.own);
            let next =
                "restore it from a backup; otherwise the next start creates a new one and announces them all again";
            finding(Level::Damaged, "identity.key", found, Some(next))
        }
        Ok(None) => {
            let next = "the next start creates a new one; to keep the old peer id, put the old file back";
            finding(Level::Note, "identity.key", "is missing".into(), Some(next))
        }
        Err(error) => {
            let next = "restore the file from a backup; with a new file the node has another peer id";
            finding(Level::Damaged, "identity.key", error.to_string(), Some(next))
        }
    }];
    let path = dir.join("swarm.key");
    if crate::files::is_present(&path) {
        findings.push(match swarm_key::SwarmKey::load(&path) {
            Ok(key) => finding(Level::Ok, "swarm.key", key.fingerprint().to_string(), None),
            Err(error) => {
                let next = "copy it from another node of the private network";
                finding(Level::Damaged, "swarm.key", error.to_string(), Some(next))
            }
        });
    }
    findings
}
