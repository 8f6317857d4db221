//! `dhtstore run`: the process from its start to its end.

use super::{
    Context,
    error::{CliError, Code, Result},
    logging, output,
};
use crate::{
    clock::{Clock, SystemClock},
    config::{Config, Profile},
    control::{
        server::{ControlError, Server},
        service::{Parts, Service},
    },
    kad::peer_id::parse_multiaddr,
    node::Node,
    ops::network::{Reprovider, Servers},
    schedule::{Schedule, ScheduleError, jobs},
    store::{Store, ballast, data_dir::Lock},
    transport::{identity, swarm_key::SwarmKey},
    vital::Failed,
};
use futures::FutureExt;
use libp2p::{Multiaddr, multiaddr::Protocol};
use sd_notify::NotifyState;
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinHandle,
};

/// Draining, saving and flushing end within this; systemd would wait 90 s before it kills.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(30);
/// The last flush ends within this where a vital task has panicked.
const LAST_FLUSH: Duration = Duration::from_secs(2);
/// How often the status line of the unit is renewed.
const STATUS_EVERY: Duration = Duration::from_secs(60);
/// The limit of open files where the system does not say it.
const FILES_ASSUMED: u64 = 1024;
/// Files that are open once the store is, where /proc does not say it.
const FILES_ASSUMED_OPEN: u64 = 40;
/// How often missing ballast is made again, if there is space.
const BALLAST_EVERY: Duration = Duration::from_secs(10);

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

impl From<ControlError> for CliError {
    fn from(error: ControlError) -> Self {
        let code = match error {
            ControlError::PathTooLong { .. } => Code::Config,
            ControlError::InUse(_) => Code::TryAgain,
            ControlError::NotASocket(_) | ControlError::Io { .. } => Code::CannotCreate,
        };
        Self::new(code, error)
    }
}

impl From<ScheduleError> for CliError {
    fn from(error: ScheduleError) -> Self {
        let code = match error {
            ScheduleError::Cron { .. } => Code::Config,
            ScheduleError::Scheduler(_) => Code::Other,
        };
        Self::new(code, error)
    }
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<()> {
    let config = configure(&args, context)?;
    let files = raise_file_limit();
    // Before anything is created, so that a signal during start is not lost.
    let mut signals = Signals::new()?;
    let running = tokio::select! {
        running = start(config, files) => running?,
        () = signals.stop() => return Ok(()),
    };
    running.announce();
    let failed = tokio::select! {
        failed = running.node.vital().failed() => Some(failed),
        () = signals.stop() => None,
    };
    if let Some(failed) = failed {
        return running.fail(failed).await;
    }
    let vital = running.node.vital().clone();
    notify(&[NotifyState::Stopping]);
    tracing::info!("stopping; a second signal ends the process at once");
    tokio::select! {
        result = tokio::time::timeout(SHUTDOWN_DEADLINE, running.stop()) => match result {
            Ok(Ok(())) => match vital.failed().now_or_never() {
                Some(failed) => Err(CliError::other(failed)),
                None => Ok(()),
            },
            Ok(failed) => failed,
            Err(_) => Err(CliError::other(format_args!("not stopped within {SHUTDOWN_DEADLINE:?}; what is on disk is consistent"))),
        },
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

/// Lowers `connections.max` to the open files that there are, once the store has its own.
fn fit_connections(config: &mut Config, limit: u64) -> Result<()> {
    let open = std::fs::read_dir("/proc/self/fd").map_or(FILES_ASSUMED_OPEN, |files| files.count() as u64);
    // Two for a socket that is looked at before it is bound.
    let used = open + 2 * config.listen.len() as u64;
    match config.connections.fit(limit, used) {
        Ok(None) => Ok(()),
        Ok(Some(wanted)) => {
            tracing::warn!(
                wanted = wanted.max,
                connections = config.connections.max,
                wanted_handshakes = wanted.max_pending,
                handshakes = config.connections.max_pending,
                open_files = limit,
                "connections.max and max_pending are lowered to the open files that there are; raise LimitNOFILE (ulimit -Hn)"
            );
            Ok(())
        }
        Err(least) => Err(CliError::config(format_args!(
            "cannot serve with {limit} open files: the store, the control socket and the first connections take {least}; raise LimitNOFILE (ulimit -n)"
        ))),
    }
}

/// Everything that runs.
struct Running {
    node: Node,
    store: Store,
    schedule: Schedule,
    control: JoinHandle<Option<()>>,
    reprovide: JoinHandle<Option<()>>,
    status: JoinHandle<Option<()>>,
    ballast: JoinHandle<Option<()>>,
    // Held to the end: nobody else opens the directory before the store is closed.
    _lock: Lock,
}

async fn start(mut config: Config, files: u64) -> Result<Running> {
    let clock: Arc<dyn Clock> = SystemClock::new();
    let started = clock.monotonic();
    let dir = config.data_dir.clone();
    let (mut settings, store_clock) = (config.store_settings(), Arc::clone(&clock));
    // Before anything is made in the name of a node that must not run.
    if let Some(path) = &config.swarm_key {
        SwarmKey::load(path)?;
    }
    let opened = tokio::task::spawn_blocking(move || -> Result<_> {
        let lock = Lock::acquire(&dir)?;
        let gave_up = ballast::give_up_if_full(&dir);
        let identity = identity::load_or_create(&dir)?;
        settings.position = *crate::kad::keyspace::Key::for_peer(&identity.public().to_peer_id()).as_bytes();
        let store = Store::open(&lock, settings, store_clock)?;
        let peer = identity.public().to_peer_id();
        match store.announce_as(&peer) {
            Ok(None) => {}
            Ok(Some((before, own))) => tracing::warn!(
                %before,
                now = %peer,
                own_cids = own,
                "the node has another peer id than before, so all own CIDs are announced again at once; if identity.key was \
                 lost, stop the node and restore it from a backup"
            ),
            // A disk that takes no writes: the next start looks again.
            Err(error) => tracing::warn!(%error, "cannot note the peer id that own CIDs are announced under"),
        }
        Ok((lock, identity, store, gave_up))
    });
    let (lock, identity, store, gave_up) = opened.await.map_err(CliError::other)??;
    config.fit_identity(&identity.public().to_peer_id())?;
    for note in store.stat().notes {
        tracing::warn!("{note}");
    }
    fit_connections(&mut config, files)?;
    let control = Server::bind(&config.control_socket()).await?;
    let node = Node::start(config.node_settings(), identity, store.stores(), Arc::clone(&clock)).await?;
    let vital = node.vital().clone();
    let reprovider =
        Reprovider::new(Servers(node.clone()), store.provided.clone(), Arc::clone(&clock), config.reprovide.interval);
    let reprovide = {
        let reprovider = reprovider.clone();
        tokio::spawn(vital.watch("reprovider", async move { reprovider.run().await }))
    };
    let all = jobs::all(&config, &store, &node, &reprovider, &clock);
    let schedule = Schedule::start(all, store.jobs.clone(), Arc::clone(&clock), &vital).await?;
    let status = tokio::spawn(vital.watch("status", keep_status(node.clone(), store.clone())));
    let ballast = Ballast { dir: config.data_dir.clone(), reserve: config.store.reserve as u64, gave_up };
    let ballast = tokio::spawn(vital.watch("ballast", ballast.keep()));
    let parts = Parts {
        config,
        node: node.clone(),
        store: store.clone(),
        reprovider,
        schedule: schedule.clone(),
        clock,
        started,
        lost_log_lines: logging::lost_lines,
    };
    let control = tokio::spawn(vital.watch("control socket", control.serve(Service::new(parts))));
    Ok(Running { node, store, schedule, control, reprovide, status, ballast, _lock: lock })
}

impl Running {
    /// Tells the terminal and systemd that the node serves.
    fn announce(&self) {
        let peer = self.node.peer_id();
        let mut text = format!("Peer id: {peer}\n");
        for address in self.node.listeners() {
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

    /// Ends a process that is only half a node. What the store has taken is flushed, as far as that works.
    async fn fail(self, failed: Failed) -> Result<()> {
        if !matches!(tokio::time::timeout(LAST_FLUSH, self.store.close()).await, Ok(Ok(()))) {
            tracing::error!("the last seconds of announcements may be lost");
        }
        Err(CliError::other(format_args!("{failed}; start it again, and report the panic with the log above it")))
    }

    /// Drains, saves and flushes.
    async fn stop(self) -> Result<()> {
        self.control.abort();
        self.reprovide.abort();
        self.status.abort();
        self.ballast.abort();
        self.schedule.shutdown().await;
        if let Err(error) = self.node.save_routing().await {
            tracing::warn!(%error, "cannot save the routing tables");
        }
        self.node.shutdown().await;
        self.store.close().await?;
        // The socket file goes with the task.
        let _ = self.control.await;
        tracing::info!("stopped");
        Ok(())
    }
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

/// What a start on a full disk gives up, see [`ballast`].
struct Ballast {
    dir: PathBuf,
    reserve: u64,
    gave_up: bool,
}

impl Ballast {
    /// Takes back what this start has left of it, then makes it again once there is space.
    async fn keep(mut self) {
        loop {
            let (dir, reserve, all) = (self.dir.clone(), self.reserve, std::mem::take(&mut self.gave_up));
            let made = tokio::task::spawn_blocking(move || ballast::make(&dir, reserve, all)).await;
            if let Ok(Err(error)) = made {
                tracing::debug!(%error, "ballast cannot be made yet");
            }
            tokio::time::sleep(BALLAST_EVERY).await;
        }
    }
}

/// Renews the line that `systemctl status` shows.
async fn keep_status(node: Node, store: Store) {
    let mut lost = 0;
    loop {
        let (before, lost_now) = (lost, logging::lost_lines());
        lost = lost_now;
        if lost > before {
            tracing::warn!(lines = lost - before, "log lines were lost: stderr was full, closed, or read too slowly");
        }
        let figures = store.clone();
        // A panic there has been logged.
        let Ok(stat) = tokio::task::spawn_blocking(move || figures.stat()).await else {
            tokio::time::sleep(STATUS_EVERY).await;
            continue;
        };
        let servers: Vec<String> = crate::kad::Dht::ALL
            .into_iter()
            .map(|dht| format!("{} {} servers", node.table(dht).len(), dht.name()))
            .collect();
        let status = format!("{}, {} records, {} own CIDs", servers.join(", "), stat.records, stat.provided);
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
