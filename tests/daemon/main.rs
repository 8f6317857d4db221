//! Daemons as values: several live in one process, each with a data directory of its own.

#![allow(clippy::unwrap_used, reason = "tests fail by panics")]

use dhtstore::{
    config::{Config, Profile},
    daemon::{Daemon, DaemonError, Surroundings},
    kad::{Cid, cids},
    store::StoreError,
};
use libp2p::multiaddr::Protocol;
use std::{path::Path, time::Duration};

/// Longer than any step here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn config(dir: &Path) -> Config {
    let mut config = Config::defaults(Profile::Private);
    config.data_dir = dir.to_owned();
    config.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
    config
}

async fn start(dir: &Path) -> Daemon {
    Daemon::start(config(dir), Surroundings::default()).await.unwrap()
}

fn cid() -> Cid {
    cids::parse("bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku").unwrap()
}

/// Waits until a server is in a routing table of `daemon`.
async fn knows_a_server(daemon: &Daemon) {
    let known = async {
        while daemon.ops().brief().await.unwrap().servers.iter().all(|(_, servers)| *servers == 0) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, known).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_daemons_in_one_process_find_what_the_other_provides_and_one_starts_again_with_all_it_had() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (first, second) = (start(dirs[0].path()).await, start(dirs[1].path()).await);
    assert_ne!(first.peer_id(), second.peer_id());
    let address = first.listeners()[0].clone().with(Protocol::P2p(first.peer_id()));
    assert_eq!(second.ops().connect(address).await.unwrap().id, first.peer_id());
    knows_a_server(&first).await;
    knows_a_server(&second).await;

    assert_eq!(first.ops().provide(vec![cid()]).await.unwrap().added, 1);
    let found = second.ops().finding_providers(&cid(), 20).outcome().await;
    let provider = found.iter().find(|provider| provider.id == first.peer_id()).expect("the other finds it");
    assert!(!provider.addrs.is_empty());

    let (peer, socket) = (first.peer_id(), first.control_socket().to_owned());
    assert!(socket.exists());
    first.stop().await.unwrap();
    assert!(!socket.exists());
    second.stop().await.unwrap();

    let again = start(dirs[0].path()).await;
    assert_eq!(again.peer_id(), peer);
    assert_eq!(again.ops().own(vec![cid()]).await.unwrap().len(), 1);
    again.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_daemons_on_one_directory_the_second_does_not_start_and_disturbs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let first = start(dir.path()).await;
    let second = Daemon::start(config(dir.path()), Surroundings::default()).await;
    assert!(matches!(second, Err(DaemonError::Store(StoreError::Locked(_)))), "{second:?}");
    assert!(first.control_socket().exists());
    first.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_late_leaves_nothing_behind_that_keeps_the_next_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    let mut taken = config(dir.path());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    taken.listen = vec![format!("/ip4/127.0.0.1/tcp/{}", port.local_addr().unwrap().port()).parse().unwrap()];
    let failed = Daemon::start(taken, Surroundings::default()).await;
    assert!(matches!(failed, Err(DaemonError::Node(_))), "{failed:?}");
    let mut wrong = config(dir.path());
    wrong.jobs.gc.cron = "sometimes".into();
    let failed = Daemon::start(wrong, Surroundings::default()).await;
    assert!(matches!(failed, Err(DaemonError::Schedule(_))), "{failed:?}");
    start(dir.path()).await.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_dropped_stops_and_its_directory_can_be_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let dropped = start(dir.path()).await;
    dropped.ops().provide(vec![cid()]).await.unwrap();
    drop(dropped);
    let again = async {
        loop {
            match Daemon::start(config(dir.path()), Surroundings::default()).await {
                Err(DaemonError::Store(StoreError::Locked(_))) => tokio::time::sleep(Duration::from_millis(50)).await,
                started => break started.unwrap(),
            }
        }
    };
    let again = tokio::time::timeout(PATIENCE, again).await.unwrap();
    assert_eq!(again.ops().own(vec![cid()]).await.unwrap().len(), 1);
    again.stop().await.unwrap();
}
