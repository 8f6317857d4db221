//! `dhtstore run`: starts the node and runs it until it is stopped.

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

/// Interval at which the status line of the systemd unit is updated.
const STATUS_EVERY: Duration = Duration::from_secs(60);
/// Limit of open files that is assumed if the system reports none.
const FILES_ASSUMED: u64 = 1024;

/// Arguments of `dhtstore run`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Needs no configuration: creates the data directory and an identity if they are missing, and listens on port 4001 (TCP \
and QUIC). Prints `Peer id:`, `Listening:` and, once it serves, `ready`. SIGTERM or Ctrl-C stops it cleanly; a second \
signal stops it at once.

Examples:
  dhtstore run
  dhtstore run --profile amino                          a server of the public DHT
  dhtstore run --listen /ip4/0.0.0.0/tcp/4002           another port
  dhtstore run --bootstrap /ip4/192.0.2.7/tcp/4001/p2p/12D3Koo…   join the network of this node")]
pub struct Args {
    /// Listen on this address instead of those in the configuration; repeatable
    #[arg(long, value_name = "MULTIADDR", value_parser = multiaddr)]
    listen: Vec<Multiaddr>,
    /// Join the network through this peer instead of those in the configuration; repeatable
    #[arg(long, value_name = "MULTIADDR", value_parser = multiaddr)]
    bootstrap: Vec<Multiaddr>,
    /// Kind of network
    #[arg(long, value_parser = super::profile_parser())]
    profile: Option<Profile>,
}

/// Parses an address of the command line.
fn multiaddr(text: &str) -> Result<Multiaddr, String> {
    parse_multiaddr(text).map_err(|error| format!("{error}; write it like /ip4/192.0.2.7/tcp/4001"))
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<()> {
    let config = configure(&args, context)?;
    let surroundings = Surroundings { open_files: Some(raise_file_limit()), lost_log_lines: logging::lost_lines };
    // Set up before anything is created, so that a signal during the start is not lost.
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
            "{failed}; start the node again, and report the panic with the log before it"
        )));
    }
    notify(&[NotifyState::Stopping]);
    tracing::info!("stopping; a second signal stops the process at once");
    status.abort();
    tokio::select! {
        stopped = daemon.stop() => Ok(stopped?),
        () = signals.stop() => Err(CliError::other(
            "stopped at once by a second signal; announcements of the last seconds may be lost; start the node again",
        )),
    }
}

/// Loads the configuration, applies the flags to it, and logs its warnings.
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

/// Raises the soft limit of open files to the hard limit, and returns it. The usual soft limit of 1,024 is meant for
/// programs that use `select`.
fn raise_file_limit() -> u64 {
    rlimit::increase_nofile_limit(u64::MAX).unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot raise the limit of open files");
        rlimit::Resource::NOFILE.get_soft().unwrap_or(FILES_ASSUMED)
    })
}

/// Reports on stdout and to systemd that the daemon serves.
fn announce(daemon: &Daemon) {
    let peer = daemon.peer_id();
    let mut text = format!("Peer id: {peer}\n");
    for address in daemon.listeners() {
        text += &format!("Listening: {}\n", address.with(Protocol::P2p(peer)));
    }
    text += "ready\n";
    // Printed by a separate thread, because stdout may be closed or may never be read.
    let printed = std::thread::Builder::new().name("stdout".into()).spawn(|| drop(output::print(text)));
    if let Err(error) = printed {
        tracing::warn!(%error, "cannot print the addresses");
    }
    notify(&[NotifyState::Ready]);
    tracing::info!(%peer, "ready");
}

/// The signals that stop the node: SIGTERM and Ctrl-C.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next signal.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Updates the line that `systemctl status` shows.
async fn keep_status(ops: Ops) {
    let mut lost = 0;
    loop {
        let (before, lost_now) = (lost, logging::lost_lines());
        lost = lost_now;
        if lost > before {
            tracing::warn!(
                lines = lost - before,
                "log lines were lost: stderr is full, closed or read too slowly; the node works on"
            );
        }
        // An error means a panic, which is already logged.
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

/// Notifies systemd. Does nothing without systemd.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, state) {
        tracing::debug!(%error, "cannot notify systemd");
    }
}
