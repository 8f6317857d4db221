//! The certificate of secure WebSockets (NET-5): PEM files, read at start and again whenever they change.
//! Keys are never logged, and no error or `Debug` shows one.

mod names;

use arc_swap::ArcSwap;
use dhtstore_host::{clock::UnixTime, files::read_bounded};
use futures_rustls::{
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    rustls::{self, ClientConfig, RootCertStore, ServerConfig, crypto::ring},
};
pub use names::Names;
use sha2::{Digest, Sha256};
use std::{
    fmt, fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// How often the files are looked at. A certificate is renewed days before it ends, so a minute is soon enough.
pub const RENEWAL_CHECK: Duration = Duration::from_secs(60);
/// A certificate with its chain has some 10 KB; a bundle of authorities 300 KB. What is larger is some other file.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The files, in PEM. They are read again when they change.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Files {
    /// The node's certificate, first, and its chain. Listen addresses with `/tls/ws` need it.
    pub certificate: Option<PathBuf>,
    /// Its private key: PKCS#8, PKCS#1 or SEC1, without a password.
    pub key: Option<PathBuf>,
    /// Authorities of a private network that are trusted when dialling, beside the public ones (Mozilla's list).
    pub ca: Option<PathBuf>,
}

/// Why there is no TLS for WebSockets.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("{setting}: cannot read {}: {source}; {}", path.display(), after_read(source))]
    Read {
        /// Which setting names it.
        setting: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds nothing of the kind that it should.
    #[error("{setting}: {} holds no {wanted}; {hint}", path.display())]
    Empty {
        /// Which setting names it.
        setting: &'static str,
        /// Which file.
        path: PathBuf,
        /// What should be in there.
        wanted: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// A file is damaged.
    #[error("{setting}: {}: {reason}; put the file there again as it was issued", path.display())]
    Malformed {
        /// Which setting names it.
        setting: &'static str,
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Certificate and key are not of one pair.
    #[error(
        "websocket.key: {} is not the key of the certificate {}; name both files of one issue (`fullchain.pem` and \
         `privkey.pem`), the node's own certificate first and its chain behind it",
        key.display(), certificate.display()
    )]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// TLS does not take them.
    #[error("websocket.certificate: {} cannot be used: {reason}; have it issued again, for an ECDSA or RSA key", path.display())]
    Unusable {
        /// The certificate's file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

fn after_read(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "correct the path, or have the certificate issued",
        io::ErrorKind::PermissionDenied => {
            "let the user that dhtstore runs as read it, for instance a copy of group dhtstore and mode 0640"
        }
        io::ErrorKind::FileTooLarge => "it is hardly a PEM file; correct the path",
        _ => "is it a file?",
    }
}

/// What TLS works with.
pub struct Tls {
    /// `None`: no certificate is set.
    pub server: Option<Arc<ServerConfig>>,
    /// For dialling.
    pub client: Arc<ClientConfig>,
    /// What the certificate says.
    facts: Option<Facts>,
    /// Of all files, to tell whether they have changed.
    digest: [u8; 32],
}

/// What our certificate says. Times are seconds since 1970.
#[derive(Clone, Debug)]
struct Facts {
    names: Names,
    valid_from: i64,
    valid_until: i64,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl Tls {
    /// For whom the certificate is, if there is one.
    pub fn names(&self) -> Option<&Names> {
        self.facts.as_ref().map(|facts| &facts.names)
    }

    /// Why others refuse the certificate at `now`.
    pub fn complaint(&self, now: UnixTime) -> Option<&'static str> {
        let facts = self.facts.as_ref()?;
        let now = i64::from(now.0);
        if now > facts.valid_until {
            Some(
                "the certificate has expired, so nobody connects by secure WebSockets; renew it (the node takes a new file up by itself)",
            )
        } else if now < facts.valid_from {
            Some("the certificate is not valid yet; is this machine's clock right?")
        } else {
            None
        }
    }

    /// The end of its validity, for the log.
    pub fn valid_until(&self) -> Option<UnixTime> {
        let end = self.facts.as_ref()?.valid_until;
        Some(UnixTime(u32::try_from(end).unwrap_or(if end < 0 { 0 } else { u32::MAX })))
    }
}

/// The certificate in use, replaced while the node runs.
#[derive(Debug)]
pub struct Certificates {
    settings: Files,
    current: ArcSwap<Tls>,
}

impl Certificates {
    /// Reads the files; a warning when everybody may read the key. Blocks.
    pub fn load(settings: &Files) -> Result<Self, CertificateError> {
        let tls = Contents::read(settings)?.into_tls(settings)?;
        if let Some(key) = &settings.key
            && fs::metadata(key).is_ok_and(|file| file.permissions().mode() & 0o007 != 0)
        {
            tracing::warn!(path = %key.display(), "everybody may read the certificate's key: chmod 640 it");
        }
        Ok(Self { settings: settings.clone(), current: ArcSwap::from_pointee(tls) })
    }

    /// What is in use now.
    pub fn current(&self) -> Arc<Tls> {
        self.current.load_full()
    }

    /// Reads the files again and takes them up if they have changed; whether they have. What was in use stays in use
    /// when they cannot be used. Blocks.
    pub fn renew(&self) -> Result<bool, CertificateError> {
        let files = Contents::read(&self.settings)?;
        if files.digest() == self.current.load().digest {
            return Ok(false);
        }
        self.current.store(Arc::new(files.into_tls(&self.settings)?));
        Ok(true)
    }
}

/// Whether the files that `settings` name can be used. Blocks.
pub fn check(settings: &Files) -> Result<(), CertificateError> {
    Contents::read(settings)?.into_tls(settings).map(|_| ())
}

/// The files' content.
struct Contents {
    /// Certificate and key: the configuration has both or neither.
    pair: Option<(Vec<u8>, Vec<u8>)>,
    ca: Option<Vec<u8>>,
}

const CERTIFICATE: &str = "websocket.certificate";
const KEY: &str = "websocket.key";
const CA: &str = "websocket.ca";

impl Contents {
    fn read(settings: &Files) -> Result<Self, CertificateError> {
        let pair = match (&settings.certificate, &settings.key) {
            (Some(certificate), Some(key)) => Some((read(CERTIFICATE, certificate)?, read(KEY, key)?)),
            _ => None,
        };
        let ca = settings.ca.as_ref().map(|path| read(CA, path)).transpose()?;
        Ok(Self { pair, ca })
    }

    fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        let parts = self.pair.iter().flat_map(|(certificate, key)| [certificate, key]).chain(&self.ca);
        for part in parts {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }

    fn into_tls(self, settings: &Files) -> Result<Tls, CertificateError> {
        let digest = self.digest();
        let mut roots = RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        if let (Some(bytes), Some(path)) = (&self.ca, &settings.ca) {
            for certificate in certificates(CA, path, bytes)? {
                roots.add(certificate).map_err(|error| malformed(CA, path, error))?;
            }
        }
        let client = ClientConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .map_err(unusable(Path::new("")))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (server, facts) = match (&self.pair, &settings.certificate, &settings.key) {
            (Some((certificate, key)), Some(certificate_path), Some(key_path)) => {
                let chain = certificates(CERTIFICATE, certificate_path, certificate)?;
                let facts = Facts::of(certificate_path, &chain)?;
                let key = private_key(key_path, key)?;
                (Some(Arc::new(server(chain, key, certificate_path, key_path)?)), Some(facts))
            }
            _ => (None, None),
        };
        Ok(Tls { server, client: Arc::new(client), facts, digest })
    }
}

fn server(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    certificate_path: &Path,
    key_path: &Path,
) -> Result<ServerConfig, CertificateError> {
    let refused = |error| match error {
        rustls::Error::InconsistentKeys(_) => {
            CertificateError::Mismatch { certificate: certificate_path.into(), key: key_path.into() }
        }
        error => unusable(certificate_path)(error),
    };
    ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .map_err(refused)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(refused)
}

impl Facts {
    fn of(path: &Path, chain: &[CertificateDer<'_>]) -> Result<Self, CertificateError> {
        let (_, leaf) = x509_parser::parse_x509_certificate(chain.first().map_or(&[], |der| der))
            .map_err(|error| malformed(CERTIFICATE, path, error))?;
        let validity = leaf.validity();
        Ok(Self {
            names: Names::of(&leaf),
            valid_from: validity.not_before.timestamp(),
            valid_until: validity.not_after.timestamp(),
        })
    }
}

fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, CertificateError> {
    read_bounded(path, MAX_FILE_BYTES).map_err(|source| CertificateError::Read { setting, path: path.into(), source })
}

fn certificates(
    setting: &'static str,
    path: &Path,
    bytes: &[u8],
) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let found = found.map_err(|error| malformed(setting, path, error))?;
    if found.is_empty() {
        return Err(CertificateError::Empty {
            setting,
            path: path.into(),
            wanted: "PEM certificate (`-----BEGIN CERTIFICATE-----`)",
            hint: "name the certificate's file, or convert a DER one with `openssl x509 -inform der -in FILE -out NEW`",
        });
    }
    Ok(found)
}

/// PKCS#8, PKCS#1 or SEC1.
fn private_key(path: &Path, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, CertificateError> {
    PrivateKeyDer::from_pem_slice(bytes).map_err(|error| match error {
        pem::Error::NoItemsFound => CertificateError::Empty {
            setting: KEY,
            path: path.into(),
            wanted: "PEM private key without a password (`-----BEGIN PRIVATE KEY-----`)",
            hint: "name the key's file, or convert it with `openssl pkey -in FILE -out NEW`",
        },
        error => malformed(KEY, path, error),
    })
}

fn malformed(setting: &'static str, path: &Path, reason: impl fmt::Display) -> CertificateError {
    CertificateError::Malformed { setting, path: path.into(), reason: reason.to_string() }
}

fn unusable(path: &Path) -> impl Fn(rustls::Error) -> CertificateError {
    move |error| CertificateError::Unusable { path: path.into(), reason: error.to_string() }
}

#[cfg(test)]
mod tests;
