//! One data directory, and the processes that are killed in it one after the other.

use crate::{
    layer::Plan,
    model::{Model, Shown, TTL},
    points::{Point, Table},
    server::{End, Home, Server, terminate},
};
use dhtstore::{
    control::protocol::Request,
    kad::message::{EncodedPeer, MessageType, add_provider, request},
};
use dhtstore_testkit::raw::{Over, Raw};
use libp2p::Multiaddr;
use multibase::Base;
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{
    cell::RefCell,
    path::Path,
    sync::Mutex,
    time::{Duration, Instant, SystemTime},
};

/// Number of announcements that are sent together, followed by a question whose answer confirms them. The two values
/// alternate between directories: 80 make some 2,000 records a second, so that sled fills segments and reuses them; 12
/// make 300.
const TOGETHER: [usize; 2] = [80, 12];
/// Time between two such groups.
const PAUSE: Duration = Duration::from_millis(40);
/// An announcement or question that takes longer does not count.
const ANSWER: Duration = Duration::from_secs(2);
/// Time within which an armed point is reached; after it, the test kills by the clock. sled flushes twice a second.
const REACHED: Duration = Duration::from_millis(2_500);
/// Approximate number of own CIDs that are kept.
const OWN: usize = 400;

struct Life<'a> {
    library: &'a Path,
    table: &'a Mutex<Table>,
    random: StdRng,
    together: usize,
    home: Home,
    model: RefCell<Model>,
    /// Number of calls of the last start until it served, if they were counted.
    opening: u64,
    /// Kills since the store was last compared.
    unseen: Vec<(Point, bool)>,
}

/// Runs the `n`-th directory: kills processes as long as `more` returns true, then compares one last time.
pub fn run(
    n: u64,
    library: &Path,
    mut random: StdRng,
    table: &Mutex<Table>,
    more: impl Fn() -> bool,
) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut turn: usize = random.random_range(0..100);
    let mut life = Life {
        library,
        table,
        random,
        together: TOGETHER[n as usize % TOGETHER.len()],
        home: Home::new(TTL),
        model: RefCell::default(),
        opening: 0,
        unseen: Vec::new(),
    };
    runtime.block_on(async {
        while more() {
            loop {
                turn += 1;
                let point = Point::nth(turn);
                let mut plan = point.plan(&mut life.random, life.opening);
                if life.opening == 0 && point == Point::Open {
                    // Only counts, and never kills.
                    plan.nth = u64::MAX;
                }
                let killed = life.round(point, &plan).await;
                if killed.map_err(|why| format!("{point:?} {plan:?}: {why}\n{}", life.home.log()))? {
                    break;
                }
            }
        }
        let mut server = life.home.start(life.library, None);
        let looked = match server.ready(&life.home).await {
            Ok(None) => {
                let asked = Instant::now();
                let shown = life.home.shown().await;
                shown.and_then(|(shown, _)| life.compare(&shown, asked, server.ready_after))
            }
            Ok(Some(end)) => Err(format!("it ended by itself: {}", end.status)),
            Err(why) => Err(why),
        };
        looked.map_err(|why| format!("at the end: {why}\n{}", life.home.log()))
    })
}

impl Life<'_> {
    /// Starts a process, compares what it holds, and has it killed. Returns false if the process ended well before the
    /// kill.
    async fn round(&mut self, point: Point, plan: &Plan) -> Result<bool, String> {
        let outside = point == Point::Random && !plan.power;
        let layer = Some((plan, point.counts_from_start())).filter(|_| !outside);
        let mut server = self.home.start(self.library, layer);
        if let Some(end) = server.ready(&self.home).await? {
            if !(point.counts_from_start() && end.killed()) {
                return Err(format!("it ended by itself: {}", end.status));
            }
            self.killed(point, plan.power, true, &end, &server);
            return Ok(true);
        }
        if point == Point::Open {
            self.opening = self.home.counted();
        }
        let asked = Instant::now();
        let shown = match self.home.shown().await {
            Ok((shown, _)) => shown,
            // If calls count from the start, the kill may come just after the process is ready.
            Err(why) if point.counts_from_start() => {
                let end = tokio::time::timeout(ANSWER, server.end()).await.map_err(|_| why)?;
                if !end.killed() {
                    return Err(format!("it ended by itself: {}", end.status));
                }
                self.killed(point, plan.power, true, &end, &server);
                return Ok(true);
            }
            Err(why) => return Err(why),
        };
        if let Err(why) = self.compare(&shown, asked, server.ready_after) {
            return Err(format!("{why}\n{}", self.home.evidence(&shown).await));
        }
        let patience = point.patience(&mut self.random);
        let (pid, seeds) = (server.pid(), self.random.random::<[u64; 2]>());
        let (home, model, together) = (&self.home, &self.model, self.together);
        let act = async {
            if point == Point::Export {
                // Calls count from the first change after a start.
                home.arm();
            }
            tokio::time::sleep(patience).await;
            match point {
                Point::Random if outside => return,
                Point::Gc => tokio::time::sleep(until_the_full_second()).await,
                Point::Stop => terminate(pid),
                _ => {}
            }
            home.arm();
            tokio::time::sleep(REACHED).await;
        };
        let end = tokio::select! {
            biased;
            end = server.end() => Some(end),
            ((), ()) = async { tokio::join!(announce(home.port(), together, seeds[0], model), provide(home, seeds[1], model)) } => None,
            () = act => None,
        };
        let reached = end.is_some() || outside;
        let end = match end {
            Some(end) => end,
            None => {
                server.kill();
                server.end().await
            }
        };
        if end.killed() {
            // If the test killed it by the clock, nothing was undone, whatever the plan says.
            self.killed(point, plan.power && reached, reached, &end, &server);
            return Ok(true);
        }
        if !(point == Point::Stop && end.status.success()) {
            return Err(format!("it ended by itself: {}", end.status));
        }
        // It stopped cleanly before the planned call came, so everything that was accepted is on disk.
        self.model.borrow_mut().stopped();
        Ok(false)
    }

    fn killed(&mut self, point: Point, power: bool, reached: bool, end: &End, server: &Server) {
        self.model.borrow_mut().killed(end.at, power, server.late);
        self.unseen.push((point, power));
        let mut table = self.table.lock().unwrap();
        let found = table.at(point, power);
        found.kills += 1;
        found.reached += u64::from(reached);
    }

    /// Compares what a process holds with what was promised.
    fn compare(&mut self, shown: &Shown, asked: Instant, took: Duration) -> Result<(), String> {
        // sled may reuse the place of a page before the page that replaces it is durable. After a power cut it may then
        // be unable to read its own file. That is reported and counted, and every record must still be there.
        let power = self.unseen.iter().any(|(_, power)| *power);
        let set_aside = power && shown.notes.iter().any(|note| note.starts_with("records/ is damaged beyond repair"));
        let checked = self.model.borrow_mut().check(shown, asked);
        let (records, own) =
            checked.map_err(|why| format!("after {:?} (power): {why}; notes: {:?}", self.unseen, shown.notes))?;
        if !shown.notes.is_empty() && !power {
            return Err(format!("notes after {:?}: {:?}", self.unseen, shown.notes));
        }
        let mut table = self.table.lock().unwrap();
        for (point, power) in std::mem::take(&mut self.unseen) {
            let found = table.at(point, power);
            found.records += records;
            found.own += own;
            found.notes += shown.notes.len() as u64;
            found.set_aside += u64::from(set_aside && power);
            found.slowest = found.slowest.max(took);
            for note in &shown.notes {
                eprintln!("after {point:?}, power {power}: {note}");
            }
        }
        Ok(())
    }
}

fn until_the_full_second() -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Duration::from_secs(1) - Duration::from_nanos(u64::from(now.subsec_nanos()))
}

/// Announces numbered records over a real connection, until dropped.
async fn announce(port: u16, together: usize, seed: u64, model: &RefCell<Model>) {
    let mut random = StdRng::seed_from_u64(seed);
    let addr: Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
    if let Some(raw) = Raw::try_connect(addr.clone(), Over::Noise).await
        && let Some(mut stream) = raw.try_stream("/ipfs/kad/1.0.0").await
    {
        let provider = raw.id.to_string();
        let me = EncodedPeer::new(&raw.id, [&addr]);
        loop {
            let keys: Vec<Vec<u8>> =
                (0..together).map(|_| [&[0x12, 0x20][..], &random.random::<[u8; 32]>()].concat()).collect();
            let mut bytes: Vec<u8> = keys.iter().flat_map(|key| add_provider(key, &me)).collect();
            bytes.extend_from_slice(&request(MessageType::GetProviders, &keys[0]));
            let names: Vec<String> = keys.iter().map(|key| Base::Base58Btc.encode(key)).collect();
            model.borrow_mut().announcing(&names, &provider);
            let answer = async { if stream.try_send(&bytes).await { stream.receive().await } else { None } };
            match tokio::time::timeout(ANSWER, answer).await {
                Ok(Some(_)) => model.borrow_mut().announced(&names),
                _ => break,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    // The process is being killed or stopped, which other code waits for.
    std::future::pending().await
}

/// Adds own CIDs and removes some again, until dropped.
async fn provide(home: &Home, seed: u64, model: &RefCell<Model>) {
    let mut random = StdRng::seed_from_u64(seed);
    loop {
        let there = model.borrow().own();
        let (cids, enter) = match there.len() > random.random_range(0..OWN) {
            true => (there.into_iter().take(random.random_range(1..4)).collect::<Vec<_>>(), false),
            false => ((0..random.random_range(1..5)).map(|_| cid(random.random())).collect(), true),
        };
        model.borrow_mut().asked(&cids);
        let request = match enter {
            true => Request::provide(cids.clone()),
            false => Request::Unprovide { cids: cids.clone() },
        };
        if home.change(request).await {
            model.borrow_mut().returned(&cids, enter);
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..150))).await;
    }
}

/// CIDv1, raw, sha2-256, in base32.
fn cid(digest: [u8; 32]) -> String {
    format!("b{}", Base::Base32Lower.encode([&[0x01, 0x55, 0x12, 0x20][..], &digest].concat()))
}
