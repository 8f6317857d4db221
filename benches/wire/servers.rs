//! The servers under test. Each is a process of its own on loopback; all have the same identity and the same routing
//! table.
#![allow(dead_code, reason = "each benchmark needs a part of it")]

mod accept;
mod echo;
mod stalled;
mod stock;

pub use accept::Yamux;
use dhtstore::kad::{PeerInfo, keyspace::Key};
use dhtstore_testkit::{
    files::bytes_below,
    load::{connection::Connection, requests},
    port,
    process::Process,
    program,
};
use libp2p::{Multiaddr, PeerId, identity::Keypair};
use std::{
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime},
};
use stock::STALL;
use tempfile::TempDir;

/// Number of peers in each server's routing table: as many as a node of the public DHT had (20 in each of ten buckets,
/// and some more).
pub const TABLE: usize = 213;
const BUCKET: usize = 20;

/// Number of providers of each key.
pub const PROVIDERS: u64 = 3;
/// Number of connections of the generator, and of streams on each, unless a part of the benchmark says otherwise.
pub const CONNECTIONS: usize = 16;
pub const STREAMS: usize = 8;

/// Time within which a server must serve.
const PATIENCE: Duration = Duration::from_secs(120);

/// Settings of our server for the benchmarks; all others have their defaults.
pub const SETTINGS: [(&str, &str); 4] = [
    ("CONNECTIONS_MAX", "6000"),
    ("CONNECTIONS_MAX_PER_IP", "5000"),
    ("CONNECTIONS_MAX_PENDING", "512"),
    // More than a minute of announcements at full speed: at the limit the farthest records are dropped and new ones
    // refused.
    ("RECORDS_MAX", "200000000"),
];

/// Number from which the servers' identity is made. No generator uses it.
const SERVER: u64 = u64::MAX;
/// Number from which the first neighbour's identity is made.
const NEIGHBOURS: u64 = 1 << 40;

/// State that all servers of a benchmark share.
pub struct Fixture {
    pub dir: TempDir,
    neighbours: Child,
    /// Number of our servers started so far.
    started: AtomicU64,
}

/// A server.
pub struct Server {
    pub name: &'static str,
    pub tcp: Multiaddr,
    pub quic: Multiaddr,
    /// Time from exec until the first connection.
    pub started_in: Duration,
    child: Child,
    dir: PathBuf,
    start: Box<dyn Fn(&Path) -> Command + Send>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.neighbours.kill().ok();
        self.neighbours.wait().ok();
    }
}

impl Fixture {
    /// Starts the neighbours. Files are below the target directory, which is on a disk; /tmp may be in memory.
    pub fn new() -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        fs::write(identity_in(dir.path()), requests::identity(SERVER).to_protobuf_encoding().unwrap()).unwrap();
        let mut neighbours = myself("serve-neighbours", dir.path());
        let mut neighbours = neighbours.stdout(Stdio::piped()).spawn().unwrap();
        wait_for_line(&mut neighbours);
        Self { dir, neighbours, started: AtomicU64::new(0) }
    }

    pub async fn ours(&self) -> Server {
        self.build_of_ours("dhtstore", &binary(), None).await
    }

    /// Starts our server on a disk on which each write and each sync takes as long as a stall.
    pub async fn ours_on_slow_disk(&self) -> Server {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/store_faults/errors.c");
        let library = self.dir.path().join("slow_disk.so");
        let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).args([&library, &source]).status();
        assert!(built.is_ok_and(|status| status.success()), "a slow disk takes a C compiler (cc)");
        let control = self.dir.path().join("slow_disk");
        fs::write(&control, format!("-{}", STALL.as_millis())).unwrap();
        self.build_of_ours("dhtstore", &binary(), Some([library, control])).await
    }

    /// Starts another build of our server, to measure a change.
    pub async fn another(&self, program: &Path) -> Server {
        self.build_of_ours("another dhtstore", program, None).await
    }

    /// Starts a build of our server. `below` is a library between it and the disk, and the file that steers the
    /// library.
    async fn build_of_ours(&self, name: &'static str, program: &Path, below: Option<[PathBuf; 2]>) -> Server {
        // Each server of a run starts with an empty directory.
        let dir = self.dir.path().join(format!("{name}.{}", self.started.fetch_add(1, Ordering::Relaxed)));
        let made = dhtstore(program, &dir).arg("init").arg("--identity").arg(identity_in(self.dir.path())).output();
        assert!(made.as_ref().is_ok_and(|made| made.status.success()), "{made:?}");
        let loaded = dhtstore(program, &dir).arg("load").arg(self.dir.path().join("table.ndjson")).output();
        assert!(loaded.as_ref().is_ok_and(|loaded| loaded.status.success()), "{loaded:?}");
        let (tcp, quic) = addresses();
        let (program, listen) = (program.to_owned(), [tcp.to_string(), quic.to_string()]);
        let started = program.clone();
        let start = move |dir: &Path| {
            let mut command = dhtstore(&started, dir);
            command.args(["run", "--listen", &listen[0], "--listen", &listen[1]]);
            command.envs(SETTINGS.map(|(name, value)| (format!("DHTSTORE_{name}"), value)));
            if let Some([library, control]) = &below {
                command.env("LD_PRELOAD", library).env("FAULT_FILE", control).env("FAULT_DIR", dir);
            }
            command
        };
        let server = Server::start(name, tcp, quic, dir, Box::new(start)).await;
        server.until_table_is_full(&program);
        server
    }

    /// Starts libp2p-kad on sled.
    pub async fn stock(&self, stalls: bool) -> Server {
        self.own(if stalls { "serve-stock-stalling" } else { "serve-stock" }, "libp2p-kad", &[]).await
    }

    /// Starts our server on a store that stalls.
    pub async fn stalled(&self) -> Server {
        self.own("serve-stalled", "dhtstore", &[]).await
    }

    /// Starts an echo whose answers have `bytes` bytes.
    pub async fn echo(&self, bytes: usize, yamux: Yamux) -> Server {
        let (what, name) = match yamux {
            Yamux::Libp2p => ("serve-echo", "echo"),
            Yamux::Ours => ("serve-echo-ours", "echo on our yamux"),
        };
        self.own(what, name, &[bytes.to_string()]).await
    }

    /// Starts tests/interop/dhtserver, which must be built.
    pub async fn go(&self, program: &Path) -> Server {
        let (tcp, quic) = addresses();
        let port = tcp.to_string().rsplit('/').next().unwrap().to_owned();
        let (program, shared) = (program.to_owned(), self.dir.path().to_owned());
        let start = move |dir: &Path| {
            let mut command = Command::new(&program);
            command.arg("-identity").arg(identity_in(&shared)).arg("-dir").arg(dir).args(["-port", &port]);
            if !dir.join("LOG").exists() {
                // The first start only: Kubo keeps no table.
                command.arg("-table").arg(shared.join("table"));
            }
            command
        };
        Server::start("go-libp2p-kad-dht", tcp, quic, self.dir.path().join("go"), Box::new(start)).await
    }

    /// Starts this program as a server.
    async fn own(&self, what: &'static str, name: &'static str, args: &[String]) -> Server {
        let (tcp, quic) = addresses();
        let listen = [tcp.to_string(), quic.to_string()];
        let (args, shared) = (args.to_vec(), self.dir.path().to_owned());
        let start = move |dir: &Path| {
            let mut command = myself(what, &shared);
            command.arg(dir).args(&listen).args(&args);
            command
        };
        Server::start(name, tcp, quic, self.dir.path().join(what), Box::new(start)).await
    }
}

impl Server {
    async fn start(
        name: &'static str,
        tcp: Multiaddr,
        quic: Multiaddr,
        dir: PathBuf,
        start: Box<dyn Fn(&Path) -> Command + Send>,
    ) -> Self {
        fs::create_dir_all(&dir).unwrap();
        let begun = Instant::now();
        let child = spawn(&start, &dir);
        let mut server = Self { name, tcp, quic, started_in: Duration::ZERO, child, dir, start };
        server.until_it_serves(begun).await;
        server
    }

    /// Kills the server with SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// Starts the server again on the same directory and ports, after [`Server::kill`].
    pub async fn start_again(&mut self) {
        let begun = Instant::now();
        self.child = spawn(&self.start, &self.dir);
        self.until_it_serves(begun).await;
    }

    pub fn process(&self) -> Process {
        Process(self.child.id())
    }

    pub fn at(&self, quic: bool) -> &Multiaddr {
        if quic { &self.quic } else { &self.tcp }
    }

    /// Returns the size of its database on disk, in bytes.
    pub fn files(&self) -> f64 {
        bytes_below(&self.dir)
    }

    async fn until_it_serves(&mut self, begun: Instant) {
        while begun.elapsed() < PATIENCE {
            if let Some(connection) = Connection::open(self.tcp.clone(), 1 << 50).await
                && connection.stream().await.is_some()
            {
                self.started_in = begun.elapsed();
                return;
            }
            assert!(self.child.try_wait().unwrap().is_none(), "{} ended:\n{}", self.name, self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{} does not serve:\n{}", self.name, self.log());
    }

    fn until_table_is_full(&self, program: &Path) {
        let begun = Instant::now();
        let full = format!(r#""dht":"wan","peers":{TABLE},"#);
        loop {
            let stat = dhtstore(program, &self.dir).args(["stat", "--format", "ndjson"]).output().unwrap();
            if String::from_utf8_lossy(&stat.stdout).contains(&full) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "the table is not full:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(log_of(&self.dir)).unwrap_or_default()
    }
}

fn spawn(start: &dyn Fn(&Path) -> Command, dir: &Path) -> Child {
    let log = fs::OpenOptions::new().create(true).append(true).open(log_of(dir)).unwrap();
    start(dir).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

fn log_of(dir: &Path) -> PathBuf {
    dir.with_file_name(format!("{}.log", dir.file_name().unwrap_or_default().to_string_lossy()))
}

fn identity_in(dir: &Path) -> PathBuf {
    dir.join("identity.key")
}

/// Returns TCP and UDP addresses with ports that were free a moment ago.
fn addresses() -> (Multiaddr, Multiaddr) {
    let port = port::free();
    let addr = |text: String| text.parse().unwrap();
    (addr(format!("/ip4/127.0.0.1/tcp/{port}")), addr(format!("/ip4/127.0.0.1/udp/{port}/quic-v1")))
}

/// Returns the release binary, or the one that `DHTSTORE_BIN` names.
fn binary() -> PathBuf {
    std::env::var_os("DHTSTORE_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_dhtstore").into()).into()
}

fn dhtstore(program: &Path, dir: &Path) -> Command {
    let mut command = program::command(program);
    command.arg("--data-dir").arg(dir);
    command
}

fn myself(what: &str, shared: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg(what).arg(shared);
    command
}

fn wait_for_line(child: &mut Child) {
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("ready"), "{line:?}");
}

/// Runs a server, and does not return, if this process was started as one.
pub async fn serve_if_asked() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let key = requests::identity(SERVER);
    let addrs = |texts: &[&str]| -> Vec<Multiaddr> { texts.iter().map(|text| text.parse().unwrap()).collect() };
    match args[..] {
        ["serve-neighbours", shared] => neighbours(&key.public().to_peer_id(), shared.as_ref()).await,
        [what @ ("serve-stock" | "serve-stock-stalling"), shared, dir, tcp, quic] => {
            let table = read_table(&Path::new(shared).join("table"));
            let ready = |filled| println!("ready {filled}");
            stock::run(key, dir.as_ref(), &addrs(&[tcp, quic]), &table, what.ends_with("stalling"), ready).await;
        }
        ["serve-stalled", _, dir, tcp, quic] => {
            stalled::run(key, dir.as_ref(), &addrs(&[tcp, quic]), || println!("ready")).await;
        }
        [what @ ("serve-echo" | "serve-echo-ours"), _, _, tcp, quic, bytes] => {
            let yamux = if what == "serve-echo" { Yamux::Libp2p } else { Yamux::Ours };
            accept::listen(key, &addrs(&[tcp, quic]), yamux, echo::serve(bytes.parse().unwrap())).await;
            println!("ready");
            std::future::pending().await
        }
        _ => {}
    }
}

/// Starts peers that fill the routing table of `server`, 20 in a bucket. All are real: their first address answers.
/// Writes them to `shared`, as lines of words and as a dump.
async fn neighbours(server: &PeerId, shared: &Path) {
    let at = Key::for_peer(server);
    let mut in_bucket = [0; TABLE / BUCKET + 1];
    let (mut lines, mut found) = (String::new(), 0);
    let time = humantime::format_rfc3339_seconds(SystemTime::now());
    let mut dump = format!(
        r#"{{"dhtstore":"dump","version":1,"schema":2,"peer_id":"{server}","time":"{time}","tables":["routing"]}}"#
    );
    // Each neighbour knows the one before it; the first knows a peer that does not exist.
    let mut known = PeerInfo { id: PeerId::random(), addrs: vec!["/ip4/127.0.0.1/tcp/9".parse().unwrap()] };
    for n in NEIGHBOURS.. {
        let key = requests::identity(n);
        let id = key.public().to_peer_id();
        let bucket = (Key::for_peer(&id).common_prefix_length(&at) as usize).min(in_bucket.len() - 1);
        let room = if bucket + 1 == in_bucket.len() { TABLE % BUCKET } else { BUCKET };
        if in_bucket[bucket] == room {
            continue;
        }
        in_bucket[bucket] += 1;
        let addrs = neighbour(key, &known).await;
        known = PeerInfo { id, addrs: vec![addrs[0].parse().unwrap()] };
        writeln!(lines, "{id} {}", addrs.join(" ")).unwrap();
        let addrs = addrs.join("\",\"");
        write!(dump, "\n{{\"table\":\"routing\",\"dht\":\"wan\",\"peer\":\"{id}\",\"addresses\":[\"{addrs}\"],\"heard\":\"{time}\"}}")
            .unwrap();
        found += 1;
        if found == TABLE {
            break;
        }
    }
    write!(dump, "\n{{\"dhtstore\":\"end\",\"rows\":{TABLE},\"tables\":{{\"routing\":{TABLE}}},\"damaged\":0}}\n")
        .unwrap();
    fs::write(shared.join("table"), lines).unwrap();
    fs::write(shared.join("table.ndjson"), dump).unwrap();
    println!("ready");
    std::future::pending().await
}

/// Returns four addresses, as a node with TCP and QUIC over IPv4 and IPv6 has. Only the first answers.
async fn neighbour(key: Keypair, known: &PeerInfo) -> Vec<String> {
    let listen = ["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
    let listening = accept::listen(key, &listen, Yamux::Libp2p, echo::naming(known)).await;
    let mut addrs: Vec<String> = listening.iter().map(Multiaddr::to_string).collect();
    addrs.extend(["/ip4/127.0.0.2/udp/9/quic-v1", "/ip6/::1/tcp/9", "/ip6/::1/udp/9/quic-v1"].map(str::to_owned));
    addrs
}

fn read_table(path: &Path) -> Vec<PeerInfo> {
    let text = fs::read_to_string(path).unwrap();
    let peer = |line: &str| {
        let mut words = line.split(' ');
        let id = words.next().unwrap().parse().unwrap();
        PeerInfo { id, addrs: words.map(|word| word.parse().unwrap()).collect() }
    };
    text.lines().map(peer).collect()
}
