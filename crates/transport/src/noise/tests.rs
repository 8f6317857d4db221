use super::*;
use crate::upgrade::Muxer;
use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::{
    core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade},
    noise as theirs,
};
use prost::Message;
use tokio::io::DuplexStream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

type Socket = Compat<DuplexStream>;

/// A pipe that takes `capacity` bytes before it must be read.
fn pipe(capacity: usize) -> (Socket, Socket) {
    let (one, other) = tokio::io::duplex(capacity);
    (one.compat(), other.compat())
}

fn identity() -> (Keypair, Noise) {
    let key = Keypair::generate_ed25519();
    let noise = Noise::new(&key).unwrap();
    (key, noise)
}

/// Sends `length` bytes one way and an answer the other way, and asserts that both arrive unchanged.
async fn exchange(
    length: usize,
    mut one: impl AsyncRead + AsyncWrite + Unpin,
    mut other: impl AsyncRead + AsyncWrite + Unpin,
) {
    let (there, back) = (vec![7; length], b"and back".to_vec());
    let ask = async {
        one.write_all(&there).await.unwrap();
        one.close().await.unwrap();
        let mut answer = Vec::new();
        one.read_to_end(&mut answer).await.unwrap();
        answer
    };
    let serve = async {
        let mut request = Vec::new();
        other.read_to_end(&mut request).await.unwrap();
        other.write_all(&back).await.unwrap();
        other.close().await.unwrap();
        request
    };
    let (answer, request) = futures::join!(ask, serve);
    assert!(request == there && answer == back);
}

#[tokio::test]
async fn both_sides_learn_who_the_other_is_and_agree_on_yamux() {
    for (capacity, length) in [(1, 100), (100, 10_000), (1 << 20, 300_000)] {
        let ((a_key, a), (b_key, b)) = (identity(), identity());
        let (one, other) = pipe(capacity);
        let (dialed, accepted) = futures::try_join!(a.dial(one), b.accept(other)).unwrap();
        assert_eq!(dialed.peer, b_key.public().to_peer_id());
        assert_eq!(accepted.peer, a_key.public().to_peer_id());
        assert_eq!((dialed.muxer, accepted.muxer), (Muxer::Agreed, Muxer::Agreed));
        exchange(length, dialed.stream, accepted.stream).await;
    }
}

#[tokio::test]
async fn libp2p_noise_is_understood_in_both_directions_and_leaves_the_multiplexer_open() {
    let ((our_key, ours), their_key) = (identity(), Keypair::generate_ed25519());
    let config = theirs::Config::new(&their_key).unwrap();

    let (one, other) = pipe(1 << 16);
    let (dialed, accepted) = futures::join!(ours.dial(one), config.clone().upgrade_inbound(other, PROTOCOL));
    let (dialed, (peer, stream)) = (dialed.unwrap(), accepted.unwrap());
    assert_eq!((dialed.peer, peer), (their_key.public().to_peer_id(), our_key.public().to_peer_id()));
    assert_eq!(dialed.muxer, Muxer::Open);
    exchange(100_000, dialed.stream, stream).await;

    let (one, other) = pipe(1 << 16);
    let (dialed, accepted) = futures::join!(config.upgrade_outbound(one, PROTOCOL), ours.accept(other));
    let ((peer, stream), accepted) = (dialed.unwrap(), accepted.unwrap());
    assert_eq!((accepted.peer, peer), (their_key.public().to_peer_id(), our_key.public().to_peer_id()));
    assert_eq!(accepted.muxer, Muxer::Open);
    exchange(100_000, stream, accepted.stream).await;
}

/// Returns the error of a handshake with a forger: `payload` makes what the forger sends, from its static key.
async fn refused(payload: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let (_, victim) = identity();
    let forger = StaticKey::generate().unwrap();
    let payload = payload(forger.public());
    let (one, other) = pipe(1 << 16);
    let forge = async {
        let resolver = Box::new(Resolver::new(Arc::new(forger)));
        let builder =
            Builder::with_resolver(PARAMS.clone(), resolver).local_private_key(StaticKey::PLACEHOLDER).unwrap();
        let mut handshake = Handshake::new(one, builder.build_initiator()).unwrap();
        handshake.send(&[]).await.unwrap();
        handshake.receive().await.unwrap();
        handshake.send(&payload).await.unwrap();
        handshake
    };
    let (_handshake, accepted) = futures::join!(forge, victim.accept(other));
    accepted.err().unwrap().to_string()
}

#[tokio::test]
async fn an_identity_that_did_not_sign_the_static_key_is_refused() {
    let victim = Keypair::generate_ed25519();
    let key = || victim.public().encode_protobuf();
    let unsigned = refused(|_| Payload::ours(key(), Vec::new()).encoded()).await;
    assert!(unsigned.contains("did not sign"), "{unsigned}");
    // A signature by the same identity over another static key, as a man in the middle could copy it.
    let copied = refused(|_| Payload::ours(key(), victim.sign(&signed(&[9; 32])).unwrap()).encoded()).await;
    assert!(copied.contains("did not sign"), "{copied}");
    let by_another =
        refused(|public| Payload::ours(key(), Keypair::generate_ed25519().sign(&signed(public)).unwrap()).encoded());
    assert!(by_another.await.contains("did not sign"));
    let without_prefix = refused(|public| Payload::ours(key(), victim.sign(public).unwrap()).encoded());
    assert!(without_prefix.await.contains("did not sign"));
    // With a good signature the handshake succeeds, so the ones above failed because of their signatures.
    let (honest, other) = (victim.clone(), identity().1);
    let (one, two) = pipe(1 << 16);
    let noise = Noise::new(&honest).unwrap();
    let (_, accepted) = futures::join!(noise.dial(one), other.accept(two));
    assert_eq!(accepted.unwrap().peer, honest.public().to_peer_id());
}

#[tokio::test]
async fn what_is_no_payload_is_refused() {
    refused(|_| Vec::new()).await;
    refused(|_| vec![0xff; 100]).await;
    refused(|_| Payload::ours(vec![1, 2, 3], vec![0; 64]).encode_to_vec()).await;
}

/// Points of a low order make a secret that everybody knows (RFC 7748, section 6.1).
#[tokio::test]
async fn a_key_of_a_low_order_is_refused() {
    for point in [[0; 32], {
        let mut one = [0; 32];
        one[0] = 1;
        one
    }] {
        let (_, victim) = identity();
        let (mut one, other) = pipe(1 << 16);
        one.write_all(&[&[0, 32], &point[..]].concat()).await.unwrap();
        assert!(victim.accept(other).await.is_err());
    }
}

#[tokio::test]
async fn a_first_message_with_a_payload_a_cut_message_and_a_tampered_one_are_refused() {
    let (_, victim) = identity();
    let (mut one, other) = pipe(1 << 16);
    one.write_all(&[&[0, 33], &[7; 33][..]].concat()).await.unwrap();
    assert!(victim.accept(other).await.is_err());
    let (mut one, other) = pipe(1 << 16);
    one.write_all(&[0, 32, 1, 2, 3]).await.unwrap();
    drop(one);
    assert_eq!(victim.accept(other).await.err().unwrap().kind(), io::ErrorKind::UnexpectedEof);

    let ((_, a), (_, b)) = (identity(), identity());
    let (one, other) = pipe(1 << 16);
    let (dialed, mut accepted) = futures::try_join!(a.dial(one), b.accept(other)).unwrap();
    let mut raw = dialed.stream.into_socket();
    raw.write_all(&[&[0, 40], &[3; 40][..]].concat()).await.unwrap();
    let error = accepted.stream.read(&mut [0; 10]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn an_idle_connection_holds_no_buffer() {
    let ((_, a), (_, b)) = (identity(), identity());
    let (one, other) = pipe(1 << 20);
    let (mut dialed, mut accepted) = futures::try_join!(a.dial(one), b.accept(other)).unwrap();
    let sent = vec![5; 200_000];
    dialed.stream.write_all(&sent).await.unwrap();
    dialed.stream.flush().await.unwrap();
    let mut got = vec![0; sent.len()];
    accepted.stream.read_exact(&mut got).await.unwrap();
    assert!(got == sent);
    assert!(futures::poll!(accepted.stream.read(&mut [0])).is_pending());
    for stream in [&dialed.stream, &accepted.stream] {
        assert!(stream.held() <= 1024, "{}", stream.held());
    }
}
