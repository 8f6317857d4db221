//! Crowds at the door: peers that begin handshakes and then stay silent, while honest peers connect from elsewhere.

use crate::{Over, Raw, Victim, process::Process};
use futures::future::join_all;
use libp2p::{
    Transport,
    core::{
        Endpoint,
        transport::{DialOpts, PortUse},
    },
    identity::Keypair,
    quic,
};
use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream, UdpSocket},
    task::JoinHandle,
    time::{interval, sleep, timeout},
};

/// Connections of the crowd, and the time between two of them: 300 a second.
const CROWD: usize = 1200;
const EVERY: Duration = Duration::from_micros(3_333);
/// Honest connections, made one after the other while the crowd connects.
const HONEST: usize = 100;

/// Returns an address of the crowd. Honest connections come from another place, 127.0.0.1.
fn place(n: usize) -> IpAddr {
    Ipv4Addr::new(127, 0, 9 + u8::try_from(n).unwrap(), 9).into()
}

/// Connects from `from` and sends only `words`.
async fn silent(from: IpAddr, to: SocketAddr, words: &[u8]) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    let mut stream = timeout(Duration::from_secs(5), socket.connect(to)).await.ok()?.ok()?;
    stream.write_all(words).await.ok()?;
    Some(stream)
}

/// Starts a crowd over TCP from this number of places. It stays until the task is aborted.
fn crowd(places: usize, to: SocketAddr, words: &'static [u8]) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut pace = interval(EVERY);
        let mut held = Vec::new();
        for n in 0..CROWD {
            pace.tick().await;
            held.push(tokio::spawn(silent(place(n % places), to, words)));
        }
        let held: Vec<_> = join_all(held).await;
        sleep(Duration::from_secs(60)).await;
        drop(held);
    })
}

/// Returns the first packets of QUIC handshakes, each of a different connection.
async fn first_packets(count: usize) -> Vec<Vec<u8>> {
    let sink = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = format!("/ip4/127.0.0.1/udp/{}/quic-v1", sink.local_addr().unwrap().port()).parse().unwrap();
    let mut transport = quic::tokio::Transport::new(quic::Config::new(&Keypair::generate_ed25519()));
    let opts = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
    let dials: Vec<_> =
        (0..count).map(|_| tokio::spawn(transport.dial(libp2p::Multiaddr::clone(&addr), opts).unwrap())).collect();
    let (mut packets, mut seen) = (Vec::new(), HashSet::new());
    let mut buffer = [0; 2048];
    while packets.len() < count {
        let (length, _) = timeout(Duration::from_secs(10), sink.recv_from(&mut buffer)).await.unwrap().unwrap();
        // A long header: flags, version, then the length of the destination's connection id and the id.
        let id = buffer[6..6 + usize::from(buffer[5])].to_vec();
        if length >= 1200 && seen.insert(id) {
            packets.push(buffer[..length].to_vec());
        }
    }
    dials.iter().for_each(JoinHandle::abort);
    packets
}

/// Makes honest connections over TCP and QUIC in turn. Returns how many were served.
async fn honest(victim: &Victim) -> usize {
    let mut served = 0;
    for n in 0..HONEST {
        let over = if n % 2 == 0 { Over::Noise } else { Over::Quic };
        let asked = async {
            let raw: Raw = victim.try_connect(over).await?;
            crate::honest::ask(&mut raw.try_stream("/ipfs/kad/1.0.0").await?).await;
            Some(())
        };
        served += usize::from(matches!(timeout(Duration::from_secs(5), asked).await, Ok(Some(()))));
        sleep(Duration::from_millis(20)).await;
    }
    served
}

/// Allows one crowd at a time, so that the two cores of the machine serve one and not six.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Asserts that at least 99 of 100 honest connections are served during a crowd, and that one line of the log names the
/// crowd.
async fn is_served(process: &Process, crowd: JoinHandle<()>, named: &str) {
    // Waits until the crowd is larger than the limit.
    sleep(Duration::from_millis(1500)).await;
    let victim = process.victim(1, Duration::ZERO);
    let served = honest(&victim).await;
    println!("{served} of {HONEST} honest connections, {} gave way", process.counter("handshakes that gave way"));
    assert!(served * 100 >= HONEST * 99, "{served} of {HONEST}: {}", process.state());
    crowd.abort();
    let log = process.log();
    assert_eq!(log.matches("begin more handshakes than they finish").count(), 1, "{log}");
    assert!(log.contains(named), "{named}: {log}");
    process.eventually("the door is empty again", || process.stat().unwrap()["load"]["pending_handshakes"] == 0);
}

fn at(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_crowd_from_one_place_keeps_nobody_else_out() {
    let _alone = ALONE.lock().await;
    let process = Process::start(&[]);
    let crowd = crowd(1, at(process.tcp), b"");
    is_served(&process, crowd, "127.0.9.0/24").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_crowd_from_eight_places_keeps_nobody_else_out() {
    let _alone = ALONE.lock().await;
    let process = Process::start(&[]);
    let crowd = crowd(8, at(process.tcp), b"\x13/multistream/1.0.0\n\x07/noise\n");
    is_served(&process, crowd, "127.0.").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_stops_within_the_upgrade_to_websockets_keeps_nobody_else_out() {
    let _alone = ALONE.lock().await;
    let process = Process::start(&[]);
    const HALF: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n";
    let crowd = crowd(1, at(process.websocket), HALF);
    is_served(&process, crowd, "127.0.9.0/24").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_before_and_within_the_tls_of_websockets_keeps_nobody_else_out() {
    let _alone = ALONE.lock().await;
    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("certificate.pem"), issued.cert.pem()).unwrap();
    std::fs::write(path("key.pem"), issued.key_pair.serialize_pem()).unwrap();
    // A truncated record of a ClientHello.
    const HALF: &[u8] = &[0x16, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3];
    for words in [&b""[..], HALF] {
        let process =
            Process::start(&[("WEBSOCKET_CERTIFICATE", &path("certificate.pem")), ("WEBSOCKET_KEY", &path("key.pem"))]);
        let crowd = crowd(1, at(process.websocket), words);
        is_served(&process, crowd, "127.0.9.0/24").await;
    }
}

/// Many nodes behind one address start at the same time: more than the handshakes that one group may have pending. None
/// of them is silent.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_burst_from_one_address_those_that_are_turned_away_get_in_when_they_try_again() {
    let _alone = ALONE.lock().await;
    let process = Process::start(&[]);
    let victim = process.victim(1, Duration::ZERO);
    let tried = join_all((0..300).map(async |n| {
        let mut tries = 1;
        while victim.try_connect(Over::Noise).await.is_none() {
            tries += 1;
            assert!(tries <= 20, "{n}: {}", process.state());
            sleep(Duration::from_millis(250)).await;
        }
        tries
    }))
    .await;
    let (once, most) = (tried.iter().filter(|tries| **tries == 1).count(), tried.iter().max().unwrap());
    println!("of 300 at the same time {once} connected at the first try, all after {most}");
    // About 128, the handshakes that one group may have pending: a later one replaces the oldest, and a few fail for
    // other reasons.
    assert!(once >= 100, "{once}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_quic_handshakes_that_go_no_further_keeps_nobody_else_out() {
    let _alone = ALONE.lock().await;
    let process = Process::start(&[]);
    let packets = first_packets(800).await;
    let to = at(process.udp);
    let crowd = tokio::spawn(async move {
        let socket = UdpSocket::bind((place(0), 0)).await.unwrap();
        let mut pace = interval(EVERY);
        for packet in packets {
            pace.tick().await;
            socket.send_to(&packet, to).await.unwrap();
        }
        sleep(Duration::from_secs(60)).await;
    });
    is_served(&process, crowd, "127.0.9.0/24").await;
}
