use super::*;
use futures::{AsyncReadExt, AsyncWriteExt, future::try_join};
use futures_rustls::rustls::{
    self, DigitallySignedStruct, SignatureScheme,
    client::{
        ResolvesClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime},
    sign::CertifiedKey,
};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use tokio::io::DuplexStream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

fn pipe() -> (Compat<DuplexStream>, Compat<DuplexStream>) {
    let (one, other) = tokio::io::duplex(1 << 16);
    (one.compat(), other.compat())
}

fn identity() -> (Keypair, Tls) {
    let key = Keypair::generate_ed25519();
    let tls = Tls::new(&key).unwrap();
    (key, tls)
}

#[tokio::test]
async fn both_sides_learn_who_the_other_is_and_agree_on_yamux() {
    let ((a_key, a), (b_key, b)) = (identity(), identity());
    let (one, other) = pipe();
    let (mut dialed, mut accepted) = try_join(a.dial(one), b.accept(other)).await.unwrap();
    assert_eq!(dialed.peer, b_key.public().to_peer_id());
    assert_eq!(accepted.peer, a_key.public().to_peer_id());
    assert_eq!((dialed.muxer, accepted.muxer), (Muxer::Agreed, Muxer::Agreed));
    dialed.stream.write_all(b"there").await.unwrap();
    dialed.stream.flush().await.unwrap();
    let mut got = [0; 5];
    accepted.stream.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"there");
}

#[tokio::test]
async fn libp2p_tls_is_understood_in_both_directions_and_leaves_the_multiplexer_open() {
    let ((our_key, ours), their_key) = (identity(), Keypair::generate_ed25519());
    let theirs = tls::Config::new(&their_key).unwrap();

    let (one, other) = pipe();
    let (dialed, accepted) = futures::join!(ours.dial(one), theirs.clone().upgrade_inbound(other, PROTOCOL));
    let dialed = dialed.unwrap();
    assert_eq!((dialed.peer, dialed.muxer), (their_key.public().to_peer_id(), Muxer::Open));
    assert_eq!(accepted.unwrap().0, our_key.public().to_peer_id());

    let (one, other) = pipe();
    let (dialed, accepted) = futures::join!(theirs.upgrade_outbound(one, PROTOCOL), ours.accept(other));
    let accepted = accepted.unwrap();
    assert_eq!((accepted.peer, accepted.muxer), (their_key.public().to_peer_id(), Muxer::Open));
    assert_eq!(dialed.unwrap().0, our_key.public().to_peer_id());
}

/// Sends any certificate, and takes any.
#[derive(Debug)]
struct Forger(Arc<CertifiedKey>);

impl ResolvesClientCert for Forger {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ServerCertVerifier for Forger {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// Returns the peer id that the server accepts, or its error, for a client that presents `chain` and signs with `key`.
async fn presented(
    server: &Tls,
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'_>,
) -> io::Result<libp2p::PeerId> {
    let certified = CertifiedKey::new(chain, aws_lc_rs::sign::any_ecdsa_type(key).unwrap());
    let forger = Arc::new(Forger(Arc::new(certified)));
    let mut client = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(forger.clone())
        .with_client_cert_resolver(forger);
    client.alpn_protocols = vec![ALPN.to_vec()];
    let (one, other) = pipe();
    let name = ServerName::try_from("localhost").unwrap();
    let dial = TlsConnector::from(Arc::new(client)).connect(name, one);
    let (_dialed, accepted) = futures::join!(dial, server.accept(other));
    accepted.map(|secured| secured.peer)
}

/// Returns a certificate for `certificate_key` that names `identity`, and the key. `signed` is what the identity signs.
fn certificate(
    identity: &Keypair,
    certificate_key: &KeyPair,
    signed: &[u8],
    change: impl FnOnce(&mut CertificateParams),
) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let octets = |bytes: &[u8]| [&[4, u8::try_from(bytes.len()).unwrap()], bytes].concat();
    let content = [octets(&identity.public().encode_protobuf()), octets(&identity.sign(signed).unwrap())].concat();
    let sequence = [&[0x30, u8::try_from(content.len()).unwrap()], &content[..]].concat();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.custom_extensions = vec![CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 53594, 1, 1], sequence)];
    change(&mut params);
    let certificate = params.self_signed(certificate_key).unwrap();
    (certificate.into(), PrivatePkcs8KeyDer::from(certificate_key.serialize_der()).into())
}

fn to_sign(certificate_key: &KeyPair) -> Vec<u8> {
    [b"libp2p-tls-handshake:", &certificate_key.public_key_der()[..]].concat()
}

#[tokio::test]
async fn a_forged_certificate_is_refused_and_so_is_a_real_one_of_another() {
    let (_, server) = identity();
    let (victim, key) = (Keypair::generate_ed25519(), KeyPair::generate().unwrap());
    let (good, good_key) = certificate(&victim, &key, &to_sign(&key), |_| ());
    // Twice, because the second time the server already knows that the signatures are valid.
    for _ in 0..2 {
        let peer = presented(&server, vec![good.clone()], &good_key).await.unwrap();
        assert_eq!(peer, victim.public().to_peer_id());
    }

    let another = KeyPair::generate().unwrap();
    let another_key = PrivatePkcs8KeyDer::from(another.serialize_der()).into();
    assert!(presented(&server, vec![good.clone()], &another_key).await.is_err(), "without the key of the certificate");
    assert!(presented(&server, vec![good.clone(), good.clone()], &good_key).await.is_err(), "two certificates");
    assert!(presented(&server, Vec::new(), &good_key).await.is_err(), "no certificate");

    let (unsigned, unsigned_key) = certificate(&victim, &another, &to_sign(&key), |_| ());
    assert!(presented(&server, vec![unsigned], &unsigned_key).await.is_err(), "the identity signed another key");

    let mut changed = good.to_vec();
    *changed.last_mut().unwrap() ^= 1;
    assert!(presented(&server, vec![changed.into()], &good_key).await.is_err(), "a self-signature that is not valid");

    let (expired, expired_key) = certificate(&victim, &key, &to_sign(&key), |params| {
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    });
    assert!(presented(&server, vec![expired], &expired_key).await.is_err(), "expired");
}

#[tokio::test]
async fn the_post_quantum_key_exchange_is_taken_where_the_client_offers_it() {
    let ((_, client), (_, server)) = (identity(), identity());
    let (one, other) = pipe();
    let (dialed, _accepted) = try_join(client.dial(one), server.accept(other)).await.unwrap();
    let (_, state) = dialed.stream.get_ref();
    let group = state.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), rustls::NamedGroup::X25519MLKEM768);
}

#[tokio::test]
async fn a_peer_that_ends_within_the_handshake_is_an_error() {
    let (_, server) = identity();
    let (mut one, other) = pipe();
    one.write_all(&[22, 3, 1, 0, 100, 1]).await.unwrap();
    drop(one);
    assert!(server.accept(other).await.is_err());
}
