//! An honest client that asks all the time and measures how long it waits.

use dhtstore::kad::message::{self, EncodedPeer, Message, MessageType};
use dhtstore_testkit::{
    ours::multihash,
    raw::{Over, Raw, RawStream},
};
use libp2p::Multiaddr;
use std::{
    collections::VecDeque,
    fmt,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot};

/// Longest time that an honest client may ever wait: deployed clients give up then. On two otherwise idle cores a debug
/// build needs a tenth of it at worst. The measured time is printed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two rounds.
const PAUSE: Duration = Duration::from_millis(5);
/// Number of rounds in the median: the last ones, about half a second's worth.
const SAMPLE: usize = 100;
/// The content that the honest client provides.
const CONTENT: u64 = 7_000_000;

/// Asks until it is dropped.
pub struct Honest {
    stop: mpsc::Sender<oneshot::Sender<Served>>,
    task: tokio::task::JoinHandle<()>,
}

/// What the client has measured.
#[derive(Clone, Copy, Default, Debug)]
pub struct Served {
    pub answers: u64,
    pub worst: Duration,
    /// The median of the last [`SAMPLE`] rounds of two requests.
    pub median: Duration,
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} answers, the slowest after {:?}", self.answers, self.worst)
    }
}

impl Honest {
    /// Announces content over a connection of its own; from then on asks for it, and for peers.
    pub async fn start(addr: &Multiaddr, seed: u64) -> Self {
        let raw = Raw::connect(addr.clone(), Over::Noise).await;
        let mut stream = raw.stream().await;
        let entry = EncodedPeer::new(&raw.id, &["/ip4/127.0.0.1/tcp/4001".parse::<Multiaddr>().unwrap()]);
        stream.send(&message::add_provider(&multihash(CONTENT + seed), &entry)).await;
        let (stop, mut stopped) = mpsc::channel::<oneshot::Sender<Served>>(1);
        let task = tokio::spawn(async move {
            // Moves all of `raw` into the task, because the connection ends when `raw` is dropped.
            let raw = raw;
            let mut served = Served::default();
            let mut wanted: Option<(oneshot::Sender<Served>, u64)> = None;
            let mut last = VecDeque::with_capacity(SAMPLE);
            loop {
                let begun = Instant::now();
                ask(&mut stream).await;
                let providers = request(&mut stream, MessageType::GetProviders, &multihash(CONTENT + seed)).await;
                let providers = Message::decode(&providers).unwrap();
                assert!(providers.provider_peers().any(|peer| peer.id == raw.id.to_bytes()), "the record is gone");
                let took = begun.elapsed();
                served.worst = served.worst.max(took);
                served.answers += 2;
                if last.len() == SAMPLE {
                    last.pop_front();
                }
                last.push_back(took);
                match wanted.take() {
                    Some((reply, until)) if served.answers >= until => {
                        let mut sample: Vec<Duration> = last.iter().copied().collect();
                        sample.sort_unstable();
                        let _ = reply.send(Served { median: sample[sample.len() / 2], ..served });
                    }
                    Some(waiting) => wanted = Some(waiting),
                    // Further answers prove that the client is still served, and show how fast.
                    None => wanted = stopped.try_recv().ok().map(|reply| (reply, served.answers + 2 * SAMPLE as u64)),
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
        Self { stop, task }
    }

    /// Returns the measurements, and asserts that the client is still served.
    pub async fn served(&self) -> Served {
        assert!(!self.task.is_finished(), "the honest client is not served");
        let (reply, served) = oneshot::channel();
        self.stop.send(reply).await.expect("the honest client is not served");
        served.await.expect("the honest client is not served")
    }

    /// Waits at most 30 s until the median is at most `time`, since the machine may have other work. Returns the
    /// median.
    pub async fn served_within(&self, time: Duration) -> Duration {
        let begun = Instant::now();
        loop {
            let Served { median, .. } = self.served().await;
            if median <= time {
                return median;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "an answer takes {median:?}, more than {time:?}");
        }
    }
}

impl Drop for Honest {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Sends one FIND_NODE and asserts that it is answered in time.
pub async fn ask(stream: &mut RawStream) {
    request(stream, MessageType::FindNode, b"somewhere").await;
}

async fn request(stream: &mut RawStream, kind: MessageType, key: &[u8]) -> Vec<u8> {
    stream.send(&message::request(kind, key)).await;
    let answer = tokio::time::timeout(PATIENCE, stream.receive()).await.expect("an honest client waits too long");
    let answer = answer.expect("an honest client's stream was ended");
    assert_eq!(Message::decode(&answer).unwrap().kind, kind);
    answer
}
