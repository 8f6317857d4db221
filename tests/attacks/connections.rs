//! Connections that lie, that stay half open, and that come and go.

use crate::Victim;
use dhtstore_testkit::{framed, raw::Over};
use futures::future::join_all;
use libp2p::{Multiaddr, multiaddr::Protocol};
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

fn socket(addr: &Multiaddr) -> SocketAddr {
    let mut parts = addr.iter();
    match (parts.next(), parts.next()) {
        (Some(Protocol::Ip4(ip)), Some(Protocol::Tcp(port) | Protocol::Udp(port))) => (ip, port).into(),
        _ => panic!("{addr}"),
    }
}

/// Encodes a field of an identify message.
fn field(tag: u8, value: &[u8]) -> Vec<u8> {
    [&[tag][..], &framed(value)].concat()
}

/// Pushes false identify messages: a huge agent, hundreds of addresses and protocols, rubbish as a key, oversize
/// messages.
pub async fn lies_by_identify(victim: Victim) {
    let addr = |n: u16| [&[4, 127, 0, 0, 1, 6][..], &n.to_be_bytes()].concat();
    let addresses: Vec<u8> = (1..300).flat_map(|n| field(0x12, &addr(n))).collect();
    let protocols: Vec<u8> = (0..300).flat_map(|n| field(0x1a, format!("/p/{n}").as_bytes())).collect();
    let server = field(0x1a, b"/ipfs/kad/1.0.0");
    let bodies = [
        [&field(0x32, &[b'a'; 4000])[..], &server].concat(),
        [&field(0x32, &[b'a'; 1 << 20])[..], &server].concat(),
        [&addresses[..], &server].concat(),
        [&protocols[..], &server].concat(),
        [&field(0x0a, &[0xff; 300])[..], &field(0x12, b"rubbish"), &field(0x22, b"rubbish"), &server].concat(),
        vec![0xff; 4000],
    ];
    for over in [Over::Noise, Over::Quic] {
        for body in &bodies {
            let raw = victim.connect(over).await;
            if let Some(mut push) = raw.try_stream("/ipfs/id/push/1.0.0").await {
                push.try_send(&[&field(0, body)[1..]].concat()).await;
            }
            crate::honest::ask(&mut raw.stream().await).await;
        }
    }
}

/// Opens sockets that send nothing, or half of the beginning of a handshake.
pub async fn half_a_handshake(victim: Victim) {
    let target = socket(&victim.tcp);
    let select = |protocol: &str| {
        let line = |text: &str| [&[text.len() as u8 + 1], text.as_bytes(), b"\n"].concat();
        [line("/multistream/1.0.0"), line(protocol)].concat()
    };
    let beginnings = [
        Vec::new(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0xff; 3000],
        b"\x13/multistream/1".to_vec(),
        select("/noise"),
        // A noise message that announces 65,535 bytes and has 100.
        [select("/noise"), vec![0xff, 0xff], vec![7; 100]].concat(),
        select("/tls/1.0.0"),
        // A TLS record of a ClientHello, cut short.
        [select("/tls/1.0.0"), vec![0x16, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3]].concat(),
    ];
    let sockets = join_all((0..victim.many.min(400)).map(async |n| {
        victim.count(1);
        let mut socket = TcpStream::connect(target).await.ok()?;
        // Fails if the other side has closed it: the number of handshakes from one place is limited.
        let _ = socket.write_all(&beginnings[n % beginnings.len()]).await;
        Some(socket)
    }));
    let sockets: Vec<TcpStream> = sockets.await.into_iter().flatten().collect();
    assert!(sockets.len() > victim.many.min(400) / 2, "{}", sockets.len());
    // While they are open, other peers can connect, even from the same place once the grace period of these sockets is
    // over.
    tokio::time::sleep(Duration::from_millis(300)).await;
    for over in Over::ALL {
        crate::honest::ask(&mut victim.connect(over).await.stream().await).await;
    }
    // Half of them are dropped; half wait for the other side to answer or to close.
    for mut socket in sockets.into_iter().step_by(2) {
        let mut answer = [0; 4096];
        let _ = tokio::time::timeout(Duration::from_millis(1), socket.read(&mut answer)).await;
    }
}

/// Completes handshakes and then sends nothing.
pub async fn connections_opened_and_abandoned(victim: Victim) {
    for over in Over::ALL {
        for _ in 0..victim.many.div_ceil(50) {
            let opened = join_all((0..5).map(|_| victim.try_connect(over))).await;
            assert!(opened.iter().any(Option::is_some), "{over:?}");
        }
    }
}

/// Sends rubbish and truncated first packets of all QUIC versions from many ports.
pub async fn datagrams_of_rubbish(victim: Victim) {
    let target = socket(&victim.quic);
    for port in 0..victim.many.div_ceil(20) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for n in 0..20u8 {
            let version = [[0, 0, 0, 1], [0xff, 0, 0, 29], [0x6b, 0x33, 0x43, 0xcf], [0, 0, 0, 0]][usize::from(n % 4)];
            let initial = [&[0xc0 | n][..], &version, &[8], &[n; 8], &[8], &[port as u8; 8], &[0; 1179]].concat();
            let length = [1200, 20, 7, 1][usize::from(n / 5) % 4];
            victim.count(1);
            let _ = socket.send_to(&initial[..length.min(initial.len())], target).await;
        }
    }
    crate::honest::ask(&mut victim.connect(Over::Quic).await.stream().await).await;
}
