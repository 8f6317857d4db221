//! Runs `dhtstore run` on the layer, and talks to its control socket.

use crate::{layer::Plan, model::Shown};
use dhtstore::control::{
    client::{Client, ClientError, Line},
    protocol::{Request, Stat},
};
use dhtstore::store::dump::{Filter, Table};
use dhtstore_testkit::{port, program};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::{
    fs::{self, File, OpenOptions},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    time::{Duration, Instant, SystemTime},
};

/// A start that takes longer has failed, however busy the machine is.
const START: Duration = Duration::from_secs(60);
/// Time between two checks whether a process has ended.
const LOOK: Duration = Duration::from_millis(5);

/// The directory of one process: `data/`, the files of the layer, and a log.
pub struct Home {
    dir: tempfile::TempDir,
    port: u16,
    ttl: Duration,
    /// Seconds by which the clock of its processes is ahead of that of this machine.
    ahead: i64,
}

/// A process. Killed when dropped.
pub struct Server {
    child: Child,
    started: Instant,
    /// Time from its start until it served.
    pub ready_after: Duration,
    /// The longest delay of a wait of 5 ms.
    pub late: Duration,
}

/// How and when a process ended.
pub struct End {
    pub at: Instant,
    pub status: ExitStatus,
}

impl End {
    pub fn killed(&self) -> bool {
        self.status.signal() == Some(9)
    }
}

impl Home {
    pub fn new(ttl: Duration) -> Self {
        let dir = tempfile::Builder::new().prefix("dhtstore-crash-").tempdir().unwrap();
        let port = port::free();
        let home = Self { dir, port, ttl, ahead: 0 };
        fs::write(home.path().join("config.toml"), home.config()).unwrap();
        home
    }

    /// Makes its processes start at this time, Unix seconds.
    pub fn at(mut self, then: i64) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        self.ahead = then - i64::try_from(now.as_secs()).unwrap();
        self
    }

    /// Returns a configuration in which every periodic job runs each second.
    fn config(&self) -> String {
        let jobs = ["gc", "routing-snapshot", "flush-state", "routing-refresh"];
        let jobs: String =
            jobs.iter().map(|job| format!("[jobs.{job}]\ncron = \"* * * * * *\"\ninterval = \"1s\"\n")).collect();
        let ttl = self.ttl.as_secs();
        format!("profile = \"private\"\n[records]\nttl = \"{ttl}s\"\n[reprovide]\ninterval = \"{}s\"\n{jobs}", ttl - 5)
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Makes calls count from now on.
    pub fn arm(&self) {
        File::create(self.path().join("armed")).unwrap();
    }

    /// Returns the number of calls that matched the plan so far.
    pub fn counted(&self) -> u64 {
        fs::read_to_string(self.path().join("count")).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// Returns the last lines of the log.
    pub fn log(&self) -> String {
        let log = fs::read_to_string(self.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }

    /// Starts a process, on the layer if there is a plan.
    pub fn start(&self, library: &Path, plan: Option<(&Plan, bool)>) -> Server {
        for file in ["armed", "count", "said"] {
            let _ = fs::remove_file(self.path().join(file));
        }
        let log = OpenOptions::new().create(true).append(true).open(self.path().join("log")).unwrap();
        let binary = std::env::var_os("DHTSTORE_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_dhtstore").into());
        let mut command = program::command(binary);
        command
            .env("DHTSTORE_CONFIG", self.path().join("config.toml"))
            .arg("--data-dir")
            .arg(self.data())
            .args(["run", "--listen", &format!("/ip4/127.0.0.1/tcp/{}", self.port)])
            .stdout(File::create(self.path().join("said")).unwrap())
            .stderr(log);
        if self.ahead != 0 {
            command.env("LD_PRELOAD", library).env("DISK_CLOCK", self.ahead.to_string());
        }
        if let Some((plan, from_start)) = plan {
            plan.apply(&mut command, library, self.path(), from_start);
        }
        let child = command.spawn().unwrap();
        Server { child, started: Instant::now(), ready_after: Duration::ZERO, late: Duration::ZERO }
    }

    fn is_ready(&self) -> bool {
        fs::read_to_string(self.path().join("said")).is_ok_and(|said| said.ends_with("ready\n"))
    }

    async fn ask(&self, request: &Request, mut row: impl FnMut(Value)) -> Result<Value, String> {
        let told = |error: ClientError| error.to_string();
        let mut client = Client::connect(&self.data().join("control.sock")).await.map_err(told)?;
        client.send(request).await.map_err(told)?;
        loop {
            match client.next().await.map_err(told)? {
                Line::Row(json) => row(json.parse().map_err(told)?),
                // A dump reports damage as an event. Other events are ignored.
                Line::Event(json) => row(json.parse().map_err(told)?),
                Line::Error(failure) => return Err(failure.message),
                Line::Done(done) => return Ok(done),
            }
        }
    }

    /// Sends `provide` or `unprovide`; returns whether it succeeded.
    pub async fn change(&self, request: Request) -> bool {
        self.ask(&request, |_| {}).await.is_ok()
    }

    /// Returns everything that it holds.
    pub async fn shown(&self) -> Result<(Shown, Stat), String> {
        let mut shown = Shown::default();
        let filter = Filter { tables: vec![Table::Providers, Table::Provided], ..Filter::default() };
        let each = |row: Value| {
            let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
            match row["table"].as_str() {
                Some("providers") => drop(shown.records.insert(text("multihash"), text("provider"))),
                Some("provided") => drop(shown.own.insert(text("cid"))),
                _ if row.get("place").is_some() => shown.damaged.push(row.to_string()),
                _ => {}
            }
        };
        self.ask(&Request::Dump { filter, count: false, hash: false, lines: false }, each).await?;
        let stat = self.ask(&Request::Stat, |_| {}).await?;
        let stat: Stat = serde_json::from_value(stat).map_err(|error| error.to_string())?;
        shown.peer.clone_from(&stat.peer);
        shown.notes.clone_from(&stat.store.notes);
        Ok((shown, stat))
    }

    /// Returns what a process that showed `shown` says a second later, and the path of a copy of its directory.
    pub async fn evidence(&self, shown: &Shown) -> String {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let again = match self.shown().await {
            Ok((again, stat)) => {
                let more = again.records.keys().filter(|record| !shown.records.contains_key(*record)).count();
                format!("{} records; {more} more a second later; {:#?}", shown.records.len(), stat.store)
            }
            Err(why) => why,
        };
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("crash-kept-{}", self.port));
        let copied = Command::new("cp").args(["-a", "--"]).args([self.path(), &kept]).status();
        format!("{again}\n{} ({copied:?})", kept.display())
    }
}

impl Server {
    /// Waits until it serves, or has ended.
    pub async fn ready(&mut self, home: &Home) -> Result<Option<End>, String> {
        while !home.is_ready() {
            if let Some(end) = self.ended().await {
                return Ok(Some(end));
            }
            if self.started.elapsed() > START {
                return Err(format!("it did not start in {START:?}"));
            }
        }
        self.ready_after = self.started.elapsed();
        Ok(None)
    }

    /// Waits for a moment; returns how it ended, if it has.
    async fn ended(&mut self) -> Option<End> {
        let before = Instant::now();
        tokio::time::sleep(LOOK).await;
        self.late = self.late.max(before.elapsed().saturating_sub(LOOK));
        // Takes the time before the sleep as its end, since an earlier end promises fewer records.
        let status = self.child.try_wait().unwrap()?;
        Some(End { at: before, status })
    }

    /// Waits until it ends.
    pub async fn end(&mut self) -> End {
        loop {
            if let Some(end) = self.ended().await {
                return end;
            }
        }
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

/// Sends SIGTERM to a process that this test has not yet waited for.
pub fn terminate(pid: u32) {
    let pid = Pid::from_raw(pid.cast_signed()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
