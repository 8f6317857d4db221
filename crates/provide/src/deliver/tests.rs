use super::*;
use crate::{Delivery, plan::explore::tests::network};
use std::sync::{Arc, Mutex};

/// A network in which look-ups are correct and some servers do not answer.
#[derive(Clone, Default)]
struct Model {
    wan: Arc<BTreeMap<Key, PeerInfo>>,
    lan: Arc<BTreeMap<Key, PeerInfo>>,
    deaf: Arc<HashSet<PeerId>>,
    /// Most servers that a look-up returns.
    brings: Option<usize>,
    told: Arc<Mutex<BTreeMap<Vec<u8>, HashSet<PeerId>>>>,
    lookups: Arc<Mutex<usize>>,
    calls: Arc<Mutex<usize>>,
}

impl Model {
    fn wan(size: usize) -> Self {
        Self { wan: Arc::new(network(size, 1)), ..Self::default() }
    }

    fn of(&self, dht: Dht) -> &BTreeMap<Key, PeerInfo> {
        if dht == Dht::Wan { &self.wan } else { &self.lan }
    }
}

impl Network for Model {
    fn servers(&self, dht: Dht) -> usize {
        self.of(dht).len()
    }

    fn known(&self, dht: Dht, key: &Key, n: usize) -> Vec<PeerInfo> {
        let mut all: Vec<_> = self.of(dht).iter().collect();
        all.sort_by_key(|(place, _)| place.distance(key));
        all.into_iter().take(n).map(|(_, peer)| peer.clone()).collect()
    }

    async fn closest(&self, dht: Dht, target: &[u8]) -> Vec<PeerInfo> {
        *self.lookups.lock().unwrap() += 1;
        self.known(dht, &Key::for_value(target), self.brings.unwrap_or(K))
    }

    async fn add_providers(&self, _: Dht, peer: &PeerInfo, multihashes: &[Vec<u8>]) -> Delivery {
        *self.calls.lock().unwrap() += 1;
        assert!(multihashes.len() <= BATCH);
        if self.deaf.contains(&peer.id) {
            return Delivery { read: Vec::new(), error: Some("deaf".into()) };
        }
        let mut told = self.told.lock().unwrap();
        for multihash in multihashes {
            told.entry(multihash.clone()).or_default().insert(peer.id);
        }
        Delivery { read: (0..multihashes.len()).collect(), error: None }
    }
}

fn items(count: u32) -> Vec<Item> {
    let mut items: Vec<Item> = (0..count)
        .map(|number| {
            let multihash = [&[0x12, 0x20][..], &[number.to_be_bytes(); 8].concat()].concat();
            (Key::for_content(&multihash), multihash)
        })
        .collect();
    items.sort_unstable();
    items
}

#[tokio::test]
async fn in_a_network_of_20_nodes_10_000_cids_take_one_look_up_and_20_servers() {
    let model = Model::wan(19);
    let mut sweep = Sweep::new(0);
    let items = items(10_000);
    for page in items.chunks(4096) {
        let report = sweep.announce(&model, page).await.unwrap();
        assert!(report.confirmed.iter().all(|&confirmed| confirmed == 19));
    }
    assert_eq!(*model.lookups.lock().unwrap(), 1);
    assert_eq!(*model.calls.lock().unwrap(), 19 * (9 + 9 + 4));
    assert_eq!(sweep.servers.len(), 19);
}

#[tokio::test]
async fn every_cid_reaches_its_true_k_closest() {
    let model = Model::wan(1000);
    let items = items(300);
    Sweep::new(0).announce(&model, &items).await.unwrap();
    let told = model.told.lock().unwrap();
    for (key, multihash) in &items {
        let closest: HashSet<PeerId> = model.known(Dht::Wan, key, K).into_iter().map(|peer| peer.id).collect();
        assert_eq!(told[multihash], closest);
    }
    let lookups = *model.lookups.lock().unwrap();
    assert!(lookups < 200, "{lookups} look-ups in a network of some 32 regions");
}

#[tokio::test]
async fn a_single_cid_in_a_large_network_takes_a_single_look_up() {
    let model = Model::wan(2000);
    let report = Sweep::new(0).announce(&model, &items(1)).await.unwrap();
    assert_eq!(report.confirmed, [20]);
    assert_eq!(*model.lookups.lock().unwrap(), 1);
}

#[tokio::test]
async fn a_server_in_both_dhts_counts_once() {
    let model = Model { lan: Arc::new(network(5, 1)), ..Model::wan(5) };
    assert_eq!(Sweep::new(0).announce(&model, &items(3)).await.unwrap().confirmed, [5, 5, 5]);
    let apart = Model { lan: Arc::new(network(5, 2)), ..Model::wan(5) };
    assert_eq!(Sweep::new(0).announce(&apart, &items(3)).await.unwrap().confirmed, [10, 10, 10]);
}

#[tokio::test]
async fn deaf_servers_are_not_counted_and_soon_left_alone() {
    let wan = network(10, 1);
    let deaf = wan.values().take(4).map(|peer| peer.id).collect();
    let model = Model { wan: Arc::new(wan), deaf: Arc::new(deaf), ..Model::default() };
    let mut sweep = Sweep::new(0);
    for page in items(10).chunks(1) {
        assert_eq!(sweep.announce(&model, page).await.unwrap().confirmed, [6]);
    }
    assert_eq!(*model.calls.lock().unwrap(), 10 * 6 + 4 * FAILURES_MAX as usize);
}

#[tokio::test]
async fn a_server_that_fails_is_replaced_by_the_next_closest() {
    let wan = network(400, 1);
    let deaf: HashSet<PeerId> = wan.values().step_by(7).map(|peer| peer.id).collect();
    let model = Model { wan: Arc::new(wan), deaf: Arc::new(deaf.clone()), ..Model::default() };
    let items = items(500);
    let report = Sweep::new(0).announce(&model, &items).await.unwrap();
    let told = model.told.lock().unwrap();
    for ((key, multihash), confirmed) in items.iter().zip(report.confirmed) {
        assert_eq!(usize::from(confirmed), told[multihash].len());
        assert!(usize::from(confirmed) >= K, "{confirmed} of {K}");
        let mut hearing = model.known(Dht::Wan, key, 400);
        hearing.retain(|peer| !deaf.contains(&peer.id));
        assert!(hearing.iter().take(K).all(|peer| told[multihash].contains(&peer.id)));
    }
}

#[tokio::test]
async fn without_servers_there_is_an_answer_at_once() {
    assert_eq!(Sweep::new(0).announce(&Model::default(), &items(3)).await, None);
}

#[tokio::test]
async fn a_look_up_that_failed_in_part_is_not_taken_for_a_small_network() {
    let model = Model { brings: Some(3), ..Model::wan(500) };
    let items = items(50);
    Sweep::new(0).announce(&model, &items).await.unwrap();
    let told = model.told.lock().unwrap();
    assert!(told.values().all(|servers| servers.len() == K));
}
