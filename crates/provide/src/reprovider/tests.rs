use super::*;
use crate::{
    clock::ManualClock,
    kad::PeerInfo,
    network::Delivery,
    plan::explore::tests::network,
    store::{Settings, Store, data_dir::Lock},
};
use cid::Cid;
use multihash::Multihash;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const START: u32 = 1_700_000_000;
const INTERVAL: Duration = Duration::from_secs(36_000);

/// A small network that can be cut off, or stop confirming.
#[derive(Clone, Default)]
struct Model {
    servers: Arc<Vec<PeerInfo>>,
    cut_off: Arc<AtomicBool>,
    deaf: Arc<AtomicBool>,
    announced: Arc<AtomicUsize>,
}

impl Network for Model {
    fn servers(&self, dht: Dht) -> usize {
        if dht == Dht::Lan || self.cut_off.load(Ordering::Relaxed) { 0 } else { self.servers.len() }
    }

    fn known(&self, _: Dht, _: &Key, _: usize) -> Vec<PeerInfo> {
        self.servers.to_vec()
    }

    async fn closest(&self, _: Dht, _: &[u8]) -> Vec<PeerInfo> {
        self.servers.to_vec()
    }

    async fn add_providers(&self, _: Dht, _: &PeerInfo, multihashes: &[Vec<u8>]) -> Delivery {
        if self.deaf.load(Ordering::Relaxed) {
            return Delivery::default();
        }
        self.announced.fetch_add(multihashes.len(), Ordering::Relaxed);
        Delivery { read: (0..multihashes.len()).collect(), error: None }
    }
}

struct Scene {
    reprovider: Reprovider<Model>,
    model: Model,
    clock: Arc<ManualClock>,
    store: Store,
    _lock: Lock,
    _dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::acquire(&dir.path().join("data")).unwrap();
        let clock = ManualClock::at(UnixTime(START));
        let store = Store::open(&lock, Settings::default(), clock.clone()).unwrap();
        let model = Model { servers: Arc::new(network(5, 1).into_values().collect()), ..Model::default() };
        let reprovider = Reprovider::new(model.clone(), store.provided.clone(), clock.clone(), INTERVAL);
        Self { reprovider, model, clock, store, _lock: lock, _dir: dir }
    }

    async fn add(&self, count: u32) -> Vec<Cid> {
        let cids: Vec<Cid> = (0..count)
            .map(|number| Cid::new_v1(0x55, Multihash::wrap(0x12, &[number.to_be_bytes(); 8].concat()).unwrap()))
            .collect();
        assert_eq!(self.store.provided.add(cids.clone()).await.unwrap(), cids.len());
        cids
    }

    fn announced(&self) -> usize {
        self.model.announced.swap(0, Ordering::Relaxed) / self.model.servers.len()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_never_announced_is_announced_once() {
    let scene = Scene::new();
    scene.add(3000).await;
    let outcome = scene.reprovider.look().await;
    assert!(outcome.starts_with("3000 announced to 5 servers"), "{outcome}");
    assert_eq!(scene.announced(), 3000);
    assert_eq!(scene.reprovider.look().await, "no CID is due");
    assert_eq!(scene.announced(), 0);
    assert_eq!(scene.reprovider.status().due, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cid_is_announced_in_every_interval_and_the_work_is_spread() {
    let scene = Scene::new();
    scene.add(2000).await;
    scene.reprovider.look().await;
    scene.announced();
    // The first cycle moves each key to its slot. Each later cycle announces each key once.
    let mut most = 0;
    for cycle in 0..3 {
        let mut sum = 0;
        for _ in 0..INTERVAL.as_secs() / 60 {
            scene.clock.advance(Duration::from_secs(60));
            scene.reprovider.look().await;
            let announced = scene.announced();
            sum += announced;
            most = most.max(announced);
            let oldest = UnixTime(scene.clock.wall().0 - INTERVAL.as_secs() as u32 - 60);
            let late = scan::count(&scene.store.provided, &scan::everything(), Selection::Before(oldest));
            assert_eq!(late.count, 0, "announced at least once per interval");
        }
        let extra = if cycle == 0 { 2000 / 10 } else { 2000 / 30 };
        assert!((2000..=2000 + extra).contains(&sum), "cycle {cycle}: {sum}");
    }
    assert!(most < 2000 / 20, "at most {most} in a minute");
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_off_nothing_is_marked_and_it_is_announced_later() {
    let scene = Scene::new();
    let cids = scene.add(10).await;
    scene.model.cut_off.store(true, Ordering::Relaxed);
    let outcome = scene.reprovider.look().await;
    assert!(outcome.contains("no servers are known"), "{outcome}");
    let status = scene.reprovider.status();
    assert!(status.offline && status.due == 10 && status.behind_since == Some(START));
    assert_eq!(scene.store.provided.get(&cids[0].hash().to_bytes()).unwrap().announced, None);
    let (events, _watch) = mpsc::channel(1);
    let progress = scene.reprovider.announce(vec![cids[0].hash().to_bytes()], events).await;
    assert!(progress.offline && progress.announced == 0);
    scene.model.cut_off.store(false, Ordering::Relaxed);
    scene.reprovider.look().await;
    assert_eq!(scene.announced(), 10);
    let status = scene.reprovider.status();
    assert!(!status.offline && status.due == 0 && status.behind_since.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_confirms_stays_due() {
    let scene = Scene::new();
    scene.add(10).await;
    scene.model.deaf.store(true, Ordering::Relaxed);
    let outcome = scene.reprovider.look().await;
    assert!(outcome.contains("10 not confirmed by any server"), "{outcome}");
    assert_eq!(scene.reprovider.status().due, 10);
    scene.model.deaf.store(false, Ordering::Relaxed);
    scene.reprovider.look().await;
    assert_eq!(scene.announced(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn announcing_now_says_how_many_servers_confirmed_and_passes_over_what_is_not_ours() {
    let scene = Scene::new();
    let cids = scene.add(3).await;
    let (events, _watch) = mpsc::channel(1);
    let wanted = vec![cids[1].hash().to_bytes(), b"\x12\x20not ours".to_vec()];
    let progress = scene.reprovider.announce(wanted, events).await;
    assert_eq!((progress.announced, progress.total, progress.servers), (1, 1, 5));
    assert_eq!(scene.store.provided.get(&cids[1].hash().to_bytes()).unwrap().confirmed, 5);
    assert_eq!(scene.store.provided.get(&cids[0].hash().to_bytes()).unwrap().announced, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn announcing_all_takes_each_once_due_or_not() {
    let scene = Scene::new();
    scene.add(5000).await;
    scene.reprovider.look().await;
    scene.announced();
    scene.clock.advance(Duration::from_secs(60));
    let (events, mut watch) = mpsc::channel(4);
    let progress = scene.reprovider.announce_all(events).await;
    assert_eq!((progress.announced, progress.total), (5000, 5000));
    assert_eq!(scene.announced(), 5000);
    assert!(watch.try_recv().is_ok_and(|first| first.announced < 5000), "progress by page");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_set_back_makes_everything_due_rather_than_nothing() {
    let scene = Scene::new();
    scene.add(10).await;
    scene.reprovider.look().await;
    scene.announced();
    scene.clock.set_wall(UnixTime(START - 1_000_000));
    scene.reprovider.look().await;
    assert_eq!(scene.announced(), 10);
}
