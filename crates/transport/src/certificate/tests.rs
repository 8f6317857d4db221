use super::*;
use proptest::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, PKCS_RSA_SHA256, date_time_ymd};

/// A directory with `certificate.pem` and `key.pem`, and the settings that name them.
struct OnDisk {
    settings: Files,
    _dir: tempfile::TempDir,
}

impl OnDisk {
    fn new(certificate: &[u8], key: &[u8]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| Some(dir.path().join(name));
        let settings = Files { certificate: path("certificate.pem"), key: path("key.pem"), ca: None };
        let files = Self { settings, _dir: dir };
        files.write(certificate, key);
        files
    }

    fn write(&self, certificate: &[u8], key: &[u8]) {
        fs::write(self.settings.certificate.as_ref().unwrap(), certificate).unwrap();
        fs::write(self.settings.key.as_ref().unwrap(), key).unwrap();
    }

    fn error(&self) -> String {
        check(&self.settings).unwrap_err().to_string()
    }
}

/// Returns a certificate and its key, in PEM.
fn issued(name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn pem(label: &str, der: &[u8]) -> String {
    let body = multibase::Base::Base64Pad.encode(der);
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

/// Returns the key inside PKCS#8: the octet string at the end of the outer sequence.
fn unwrapped(pkcs8: &[u8]) -> &[u8] {
    let (_, info) = x509_parser::der_parser::der::parse_der_sequence(pkcs8).unwrap();
    info.as_sequence().unwrap()[2].as_slice().unwrap()
}

fn rsa() -> KeyPair {
    // libp2p's protobuf around PKCS#1: five bytes for two tags, the key type, and the length of the rest.
    let text = include_str!("../../../../tests/fixtures/throwaway-rsa.base64");
    let protobuf = multibase::Base::Base64Pad.decode(text.trim()).unwrap();
    let pkcs8 = libp2p::identity::Keypair::from_protobuf_encoding(&protobuf);
    assert!(pkcs8.is_ok());
    let pkcs1 = &protobuf[5..];
    // Version 0, the algorithm rsaEncryption, and the key as an octet string.
    let algorithm =
        [0x02, 0x01, 0x00, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 5, 0];
    let long = |tag: u8, content: &[u8]| {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x82][..], &length, content].concat()
    };
    let der = long(0x30, &[&algorithm[..], &long(0x04, pkcs1)].concat());
    KeyPair::from_pkcs8_der_and_sign_algo(&der.into(), &PKCS_RSA_SHA256).unwrap()
}

#[test]
fn net_5_keys_in_pkcs_8_pkcs_1_and_sec_1_are_taken() {
    let (ecdsa, rsa) = (KeyPair::generate().unwrap(), rsa());
    for (key, inner) in [(&ecdsa, "EC PRIVATE KEY"), (&rsa, "RSA PRIVATE KEY")] {
        let certificate = CertificateParams::new(vec!["node.example.org".into()]).unwrap().self_signed(key).unwrap();
        for text in [key.serialize_pem(), pem(inner, unwrapped(key.serialized_der()))] {
            let loaded =
                Certificates::load(&OnDisk::new(certificate.pem().as_bytes(), text.as_bytes()).settings).unwrap();
            assert!(loaded.current().server.is_some(), "{inner}");
        }
    }
}

#[test]
fn net_5_a_chain_is_taken_with_the_nodes_own_certificate_first() {
    let (authority_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&authority_key).unwrap();
    let leaf = CertificateParams::new(vec!["node.example.org".into()]).unwrap();
    let leaf = leaf.signed_by(&key, &authority, &authority_key).unwrap();
    let mut files = OnDisk::new([leaf.pem(), authority.pem()].concat().as_bytes(), key.serialize_pem().as_bytes());
    check(&files.settings).unwrap();
    files.settings.ca.clone_from(&files.settings.certificate);
    check(&files.settings).unwrap();
    files.write([authority.pem(), leaf.pem()].concat().as_bytes(), key.serialize_pem().as_bytes());
    assert!(files.error().contains("own certificate first"), "{}", files.error());
}

#[test]
fn net_5_each_mistake_with_the_files_is_told_with_the_next_step() {
    let ((certificate, key), (_, other_key)) = (issued("node.example.org"), issued("node.example.org"));
    let der = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let junk = pem("CERTIFICATE", b"junk");
    let half = &certificate[..certificate.len() / 2];
    let encrypted = pem("ENCRYPTED PRIVATE KEY", b"junk");
    for (certificate, key, expected) in [
        (certificate.as_bytes(), other_key.as_bytes(), &["websocket.key", "is not the key of", "privkey.pem"][..]),
        (b"", key.as_bytes(), &["websocket.certificate", "no PEM certificate", "openssl x509"]),
        (&der[..], key.as_bytes(), &["no PEM certificate", "-inform der"]),
        (junk.as_bytes(), key.as_bytes(), &["websocket.certificate", "as it was issued"]),
        (half.as_bytes(), key.as_bytes(), &["websocket.certificate", "as it was issued"]),
        (certificate.as_bytes(), certificate.as_bytes(), &["websocket.key", "no PEM private key", "openssl pkey"]),
        (certificate.as_bytes(), encrypted.as_bytes(), &["websocket.key", "without a password", "openssl pkey"]),
        (certificate.as_bytes(), &[b' '; MAX_FILE_BYTES as usize + 1], &["websocket.key", "hardly a PEM file"]),
    ] {
        let error = OnDisk::new(certificate, key).error();
        for part in expected {
            assert!(error.contains(part), "{part} is not in: {error}");
        }
    }
    let files = OnDisk::new(certificate.as_bytes(), key.as_bytes());
    fs::remove_file(files.settings.key.as_ref().unwrap()).unwrap();
    assert!(files.error().contains("websocket.key: cannot read") && files.error().contains("correct the path"));
    fs::create_dir(files.settings.key.as_ref().unwrap()).unwrap();
    assert!(files.error().contains("names a file"), "{}", files.error());
    let denied = after_read(&io::ErrorKind::PermissionDenied.into());
    assert!(denied.contains("0640"));
}

#[test]
fn net_5_a_certificate_out_of_date_is_complained_of() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["node.example.org".into()]).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2020, 1, 7));
    let certificate = params.self_signed(&key).unwrap();
    let loaded =
        Certificates::load(&OnDisk::new(certificate.pem().as_bytes(), key.serialize_pem().as_bytes()).settings);
    let tls = loaded.unwrap().current();
    let from = 1_577_836_800;
    assert!(tls.complaint(UnixTime(from - 1)).unwrap().contains("clock"));
    assert_eq!(tls.complaint(UnixTime(from + 1)), None);
    assert!(tls.complaint(UnixTime(from + 6 * 86_400 + 1)).unwrap().contains("renew it"));
    assert_eq!(tls.valid_until().unwrap().to_string(), "2020-01-07T00:00:00Z");
}

#[test]
fn net_5_a_renewed_certificate_is_taken_up_and_a_broken_one_is_not() {
    let ((first, first_key), (second, second_key)) = (issued("first.example"), issued("second.example"));
    let files = OnDisk::new(first.as_bytes(), first_key.as_bytes());
    let certificates = Certificates::load(&files.settings).unwrap();
    let names = || certificates.current().names().unwrap().to_string();
    assert!(!certificates.renew().unwrap());
    // In the middle of a renewal: the new certificate with the old key.
    files.write(second.as_bytes(), first_key.as_bytes());
    assert!(matches!(certificates.renew(), Err(CertificateError::Mismatch { .. })));
    assert_eq!(names(), "first.example");
    files.write(second.as_bytes(), second_key.as_bytes());
    assert!(certificates.renew().unwrap());
    assert_eq!(names(), "second.example");
    assert!(!certificates.renew().unwrap());
}

#[test]
fn without_files_one_can_still_dial_and_not_listen() {
    let tls = Certificates::load(&Files::default()).unwrap().current();
    assert!(tls.server.is_none() && tls.names().is_none() && tls.complaint(UnixTime(0)).is_none());
}

#[test]
fn nothing_shows_the_key() {
    let (certificate, key) = issued("node.example.org");
    let secret = key.lines().nth(1).unwrap();
    let loaded = Certificates::load(&OnDisk::new(certificate.as_bytes(), key.as_bytes()).settings).unwrap();
    assert!(!format!("{loaded:?}").contains(secret));
    let damaged = key.replace("-----END", "!-----END");
    let error = check(&OnDisk::new(certificate.as_bytes(), damaged.as_bytes()).settings).unwrap_err();
    assert!(!format!("{error} {error:?}").contains(secret), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_bytes_panic(body in proptest::collection::vec(any::<u8>(), 0..300), label in 0usize..5) {
        let (certificate, key) = issued("node.example.org");
        let label = ["CERTIFICATE", "PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY", "X"][label];
        for file in [body.clone(), pem(label, &body).into_bytes()] {
            let _ = check(&OnDisk::new(&file, key.as_bytes()).settings);
            let _ = check(&OnDisk::new(certificate.as_bytes(), &file).settings);
            let mut files = OnDisk::new(certificate.as_bytes(), &file);
            files.settings.ca = files.settings.key.take();
            let _ = check(&files.settings);
        }
    }
}
