//! `dhtstore run`: the process from its start to its end.

use super::{
    Context,
    error::{CliError, Result},
    logging, output,
};
use crate::{
    config::{Config, Profile},
    daemon::{Daemon, Surroundings},
    kad::peer_id::parse_multiaddr,
    ops::Ops,
};
use libp2p::{Multiaddr, multiaddr::Protocol};
use sd_notify::NotifyState;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How often the status line of the unit is renewed.
const STATUS_EVERY: Duration = Duration::from_secs(60);
/// The limit of open files where the system does not say it.
const FILES_ASSUMED: u64 = 1024;

/// Arguments of `dhtstore run`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Without a configuration: creates the data directory and an identity, listens on port 4001 (TCP and QUIC), serves.
Prints `Peer id:`, `Listening:` and, once it serves, `ready`. SIGTERM or Ctrl-C stops it cleanly, a second one at once.")]
pub struct Args {
    /// Listen here in place of what the configuration says; may be repeated
    #[arg(long, value_name = "MULTIADDR", value_parser = parse_multiaddr)]
    listen: Vec<Multiaddr>,
    /// Bootstrap from here in place of what the configuration says; may be repeated
    #[arg(long, value_name = "MULTIADDR", value_parser = parse_multiaddr)]
    bootstrap: Vec<Multiaddr>,
    /// The kind of network
    #[arg(long, value_parser = super::profile_parser())]
    profile: Option<Profile>,
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<()> {
    let config = configure(&args, context)?;
    let surroundings = Surroundings { open_files: Some(raise_file_limit()), lost_log_lines: logging::lost_lines };
    // Before anything is created, so that a signal during start is not lost.
    let mut signals = Signals::new()?;
    let daemon = tokio::select! {
        daemon = Daemon::start(config, surroundings) => daemon?,
        () = signals.stop() => return Ok(()),
    };
    announce(&daemon);
    let status = tokio::spawn(daemon.vital().watch("status", keep_status(daemon.ops().clone())));
    let failed = tokio::select! {
        failed = daemon.failed() => Some(failed),
        () = signals.stop() => None,
    };
    if let Some(failed) = failed {
        daemon.give_up().await;
        return Err(CliError::other(format_args!(
            "{failed}; start it again, and report the panic with the log above it"
        )));
    }
    notify(&[NotifyState::Stopping]);
    tracing::info!("stopping; a second signal ends the process at once");
    status.abort();
    tokio::select! {
        stopped = daemon.stop() => Ok(stopped?),
        () = signals.stop() => Err(CliError::other("stopped at once; the last seconds of announcements may be lost")),
    }
}

/// The configuration, the flags over it; warnings on stderr.
fn configure(args: &Args, context: &Context) -> Result<Config> {
    let mut sources = context.sources();
    let list = |addrs: &[Multiaddr]| addrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    if !args.listen.is_empty() {
        sources.set.push(format!("listen={}", list(&args.listen)));
    }
    if !args.bootstrap.is_empty() {
        sources.set.push(format!("bootstrap={}", list(&args.bootstrap)));
    }
    if let Some(profile) = args.profile {
        sources.set.push(format!("profile={}", profile.name()));
    }
    let loaded = sources.load_detailed()?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    loaded.config.check_forced_privacy()?;
    Ok(loaded.config)
}

/// Raises the soft limit of open files to the hard one: the usual 1,024 are for programs that use `select`. Returns the limit.
fn raise_file_limit() -> u64 {
    rlimit::increase_nofile_limit(u64::MAX).unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot raise the limit of open files");
        rlimit::Resource::NOFILE.get_soft().unwrap_or(FILES_ASSUMED)
    })
}

/// Tells the terminal and systemd that the daemon serves.
fn announce(daemon: &Daemon) {
    let peer = daemon.peer_id();
    let mut text = format!("Peer id: {peer}\n");
    for address in daemon.listeners() {
        text += &format!("Listening: {}\n", address.with(Protocol::P2p(peer)));
    }
    text += "ready\n";
    // Nobody may read it: that is no reason to stop, or to wait.
    let printed = std::thread::Builder::new().name("stdout".into()).spawn(|| drop(output::print(text)));
    if let Err(error) = printed {
        tracing::warn!(%error, "cannot print the addresses");
    }
    notify(&[NotifyState::Ready]);
    tracing::info!(%peer, "ready");
}

/// SIGTERM and Ctrl-C.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Returns at the next of them.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Renews the line that `systemctl status` shows.
async fn keep_status(ops: Ops) {
    let mut lost = 0;
    loop {
        let (before, lost_now) = (lost, logging::lost_lines());
        lost = lost_now;
        if lost > before {
            tracing::warn!(lines = lost - before, "log lines were lost: stderr was full, closed, or read too slowly");
        }
        // A panic there has been logged.
        let Ok(brief) = ops.brief().await else {
            tokio::time::sleep(STATUS_EVERY).await;
            continue;
        };
        let servers: Vec<String> =
            brief.servers.iter().map(|(dht, servers)| format!("{servers} {} servers", dht.name())).collect();
        let status = format!("{}, {} records, {} own CIDs", servers.join(", "), brief.records, brief.own);
        notify(&[NotifyState::Status(&status)]);
        tokio::time::sleep(STATUS_EVERY).await;
    }
}

/// Without systemd there is nobody to notify.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, state) {
        tracing::debug!(%error, "cannot notify systemd");
    }
}
