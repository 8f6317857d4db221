//! Tests of WebSockets (NET-5) with `libp2p-websocket` as client and as server, of certificates and of private
//! networks.

use crate::{
    ours::{self, addr, config, holds, multihash},
    theirs::Theirs,
};
use dhtstore::{config::Config, kad::Dht};
use libp2p::{Multiaddr, multiaddr::Protocol};
use libp2p_websocket::tls;
use std::{fs, path::PathBuf};

/// A self-signed certificate, which is its own authority, in PEM files with its key.
struct Issued {
    dir: tempfile::TempDir,
    certificate: rcgen::Certificate,
    key: rcgen::KeyPair,
}

impl Issued {
    fn new(name: &str) -> Self {
        let rcgen::CertifiedKey { cert: certificate, key_pair: key } =
            rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let issued = Self { dir: tempfile::tempdir().unwrap(), certificate, key };
        issued.write_to(&issued);
        issued
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Overwrites the files of `other` with this certificate and key.
    fn write_to(&self, other: &Issued) {
        fs::write(other.path("certificate.pem"), self.certificate.pem()).unwrap();
        fs::write(other.path("key.pem"), self.key.serialize_pem()).unwrap();
    }

    /// Returns the TLS configuration of a peer that has this certificate and trusts that of `other`.
    fn theirs(&self, other: &Issued) -> tls::Config {
        let der = |issued: &Issued| tls::Certificate::new(issued.certificate.der().to_vec());
        let mut tls = tls::Config::builder();
        tls.server(tls::PrivateKey::new(self.key.serialize_der()), [der(self)]).unwrap();
        tls.add_trust(&der(other)).unwrap();
        tls.finish()
    }
}

/// The configuration of our node that listens at `listen` with the certificate `own` and trusts `trusted`.
fn websockets(listen: &str, own: &Issued, trusted: &Issued) -> Config {
    let mut config = config();
    config.listen = vec![addr(listen)];
    config.websocket.certificate = Some(own.path("certificate.pem"));
    config.websocket.key = Some(own.path("key.pem"));
    config.websocket.ca = Some(trusted.path("certificate.pem"));
    config
}

fn port(addr: &Multiaddr) -> u16 {
    addr.iter().find_map(|part| if let Protocol::Tcp(port) = part { Some(port) } else { None }).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn net_5_libp2p_kad_announces_finds_and_is_dialled_over_plain_and_secure_websockets() {
    for form in ["/ws", "/tls/ws", "/wss"] {
        let (one, other) = (Issued::new("127.0.0.1"), Issued::new("127.0.0.1"));
        let listen = format!("/ip4/127.0.0.1/tcp/0{form}");
        let ours = ours::start_with(websockets(&listen, &one, &other)).await;
        assert!(ours.info().addrs[0].to_string().ends_with(form), "{:?}", ours.info());
        let publisher = Theirs::by_websockets(other.theirs(&one), &listen).await;
        let seeker = Theirs::by_websockets(other.theirs(&one), &listen).await;
        publisher.learns(&ours.info()).await;
        seeker.learns(&ours.info()).await;
        assert!(publisher.bootstraps().await, "{form}");
        publisher.announces(multihash(1)).await;
        assert_eq!(holds(&ours, &multihash(1)).await, 1, "{form}");
        assert_eq!(seeker.finds_providers(multihash(1)).await, [publisher.info.id], "{form}");

        // The other direction, from a node that has not been dialled.
        let dialler = ours::start_with(websockets(&listen, &one, &other)).await;
        assert_eq!(
            dialler.node.add_providers(Dht::Wan, &publisher.info, &[multihash(2)]).await.confirmed(),
            1,
            "{form}"
        );
        let peers = dialler.node.peers().await;
        assert!(peers[0].address.contains(form) && !peers[0].inbound, "{peers:?}");
        // Either the connection that the publisher made, or the one with which it was dialled back.
        let publisher = &ours.node.peers().await[0];
        assert!(publisher.address.contains(form), "{publisher:?}");
        ours.node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn net_5_a_renewed_certificate_is_taken_up_while_the_node_runs() {
    let (first, second) = (Issued::new("127.0.0.1"), Issued::new("127.0.0.1"));
    let ours = ours::start_with(websockets("/ip4/127.0.0.1/tcp/0/tls/ws", &first, &first)).await;
    let target = ours.info().addrs[0].clone().with_p2p(ours.node.peer_id()).unwrap();
    // Tests whether a node with this trusted certificate can connect.
    let trusting = async |trusted: &Issued| {
        let peer = ours::start_with(websockets("/ip4/127.0.0.1/tcp/0/ws", &first, trusted)).await;
        (peer.node.connect(target.clone()).await, peer)
    };
    let (connected, early) = trusting(&first).await;
    connected.unwrap();
    let refused = trusting(&second).await.0.unwrap_err().to_string();
    assert!(refused.contains("certificate"), "{refused}");

    assert!(!ours.node.renew_certificate().await.unwrap());
    // Only half of the pair changes: the old certificate stays in use.
    fs::write(first.path("key.pem"), second.key.serialize_pem()).unwrap();
    assert!(ours.node.renew_certificate().await.is_err());
    second.write_to(&first);
    assert!(ours.node.renew_certificate().await.unwrap());
    trusting(&second).await.0.unwrap();
    // An existing connection continues.
    let own = early.node.get_providers(Dht::Wan, &ours.info(), &multihash(1)).await;
    assert!(own.is_ok(), "{own:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn net_5_the_name_in_the_address_is_what_the_certificate_has_to_be_for() {
    let issued = Issued::new("node.example.org");
    let ours = ours::start_with(websockets("/ip4/127.0.0.1/tcp/0/tls/ws", &issued, &issued)).await;
    let dialler = ours::start_with(websockets("/ip4/127.0.0.1/tcp/0/ws", &issued, &issued)).await;
    let port = port(&ours.info().addrs[0]);
    // The certificate does not cover the IP address.
    let refused = dialler.node.connect(addr(&format!("/ip4/127.0.0.1/tcp/{port}/tls/ws"))).await.unwrap_err();
    assert!(refused.to_string().contains("certificate"), "{refused}");
    // The form in which Kubo announces itself with AutoTLS.
    let named = format!("/ip4/127.0.0.1/tcp/{port}/tls/sni/node.example.org/ws");
    assert_eq!(dialler.node.connect(addr(&named)).await.unwrap(), ours.node.peer_id());
}

#[tokio::test(flavor = "multi_thread")]
async fn net_5_a_swarm_key_holds_inside_websockets() {
    let issued = Issued::new("127.0.0.1");
    let start = async |byte: &str| {
        let mut config = websockets("/ip4/127.0.0.1/tcp/0/tls/ws", &issued, &issued);
        let path = issued.path(byte);
        fs::write(&path, format!("/key/swarm/psk/1.0.0/\n/base16/\n{}\n", byte.repeat(32))).unwrap();
        config.swarm_key = Some(path);
        ours::start_with(config).await
    };
    let (one, same, other) = (start("11").await, start("11").await, start("22").await);
    let target = one.info().addrs[0].clone().with_p2p(one.node.peer_id()).unwrap();
    assert_eq!(same.node.connect(target.clone()).await.unwrap(), one.node.peer_id());
    assert!(other.node.connect(target).await.is_err());
}
