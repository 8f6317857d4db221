//! The certificate of secure WebSockets (NET-5): PEM files, read at start and again whenever they change.
//!
//! The private key never appears in a log line, an error or a `Debug` text.

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

/// Time between two checks of the files for changes. Certificates are renewed days before they expire, so a minute is
/// soon enough.
pub const RENEWAL_CHECK: Duration = Duration::from_secs(60);
/// Largest file that is read. A certificate with its chain has about 10 KB, a bundle of authorities 300 KB.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The PEM files. They are read again when they change.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Files {
    /// The node's certificate, followed by its chain. Listen addresses with `/tls/ws` need it.
    pub certificate: Option<PathBuf>,
    /// Its private key: PKCS#8, PKCS#1 or SEC1, without a password.
    pub key: Option<PathBuf>,
    /// Certificate authorities of a private network. They are trusted when dialling, in addition to the public ones
    /// (Mozilla's list).
    pub ca: Option<PathBuf>,
}

/// An error of reading or using the files.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("{setting}: cannot read {}: {source}; {}", path.display(), after_read(source))]
    Read {
        /// The setting that names the file.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file does not contain what it should.
    #[error("{setting}: {} contains no {wanted}; {hint}", path.display())]
    Empty {
        /// The setting that names the file.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What it should contain.
        wanted: &'static str,
        /// The next step for the operator.
        hint: &'static str,
    },
    /// A file is damaged.
    #[error("{setting}: cannot use {}: {reason}; replace the file with a copy as it was issued", path.display())]
    Malformed {
        /// The setting that names the file.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong. A text, because a parser's error may hold bytes of the key.
        reason: String,
    },
    /// The key does not belong to the certificate.
    #[error(
        "websocket.key: {} is not the key of the certificate {}; set both files of one issue (`fullchain.pem` and \
         `privkey.pem`), with the node's own certificate first and its chain after it",
        key.display(), certificate.display()
    )]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// TLS refuses the certificate or the key.
    #[error(
        "websocket.certificate: cannot use {}: {source}; have it issued again, for an ECDSA or RSA key",
        path.display()
    )]
    Unusable {
        /// The certificate's file.
        path: PathBuf,
        /// The cause.
        source: rustls::Error,
    },
}

fn after_read(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "correct the path, or have the certificate issued",
        io::ErrorKind::PermissionDenied => {
            "let the user that dhtstore runs as read it, for instance by a copy with group dhtstore and mode 0640"
        }
        io::ErrorKind::FileTooLarge => "this is hardly a PEM file; correct the path",
        _ => "check that the path names a file",
    }
}

/// The TLS configurations made from the files.
pub struct Tls {
    /// For inbound connections. `None` if no certificate is set.
    pub server: Option<Arc<ServerConfig>>,
    /// For dialling.
    pub client: Arc<ClientConfig>,
    /// `None` if no certificate is set.
    facts: Option<Facts>,
    /// SHA-256 of all files, to notice that they have changed.
    digest: [u8; 32],
}

/// The names and the validity in our certificate. Times are Unix seconds.
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
    /// Returns the names in the certificate, if there is one.
    pub fn names(&self) -> Option<&Names> {
        self.facts.as_ref().map(|facts| &facts.names)
    }

    /// Returns why other nodes refuse the certificate at `now`, or `None` if it is valid.
    pub fn complaint(&self, now: UnixTime) -> Option<&'static str> {
        let facts = self.facts.as_ref()?;
        let now = i64::from(now.0);
        if now > facts.valid_until {
            Some(
                "the certificate has expired: browsers and other peers refuse secure WebSockets, other transports \
                 still work; renew it (the node loads the new file by itself)",
            )
        } else if now < facts.valid_from {
            Some(
                "the certificate is not valid yet: browsers and other peers refuse secure WebSockets, other transports \
                 still work; check this machine's clock",
            )
        } else {
            None
        }
    }

    /// Returns when the certificate expires, for the log.
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
    /// Reads the files. Logs a warning if every user of the machine may read the key. Blocks.
    pub fn load(settings: &Files) -> Result<Self, CertificateError> {
        let tls = Contents::read(settings)?.into_tls(settings)?;
        if let Some(key) = &settings.key
            && fs::metadata(key).is_ok_and(|file| file.permissions().mode() & 0o007 != 0)
        {
            tracing::warn!(
                path = %key.display(),
                "every user of this machine can read the certificate's key; run chmod 640 on it"
            );
        }
        Ok(Self { settings: settings.clone(), current: ArcSwap::from_pointee(tls) })
    }

    /// Returns the configurations in use now.
    pub fn current(&self) -> Arc<Tls> {
        self.current.load_full()
    }

    /// Reads the files again, and returns whether they have changed and are in use now. If they cannot be used, the old
    /// ones stay in use. Blocks.
    pub fn renew(&self) -> Result<bool, CertificateError> {
        let files = Contents::read(&self.settings)?;
        if files.digest() == self.current.load().digest {
            return Ok(false);
        }
        self.current.store(Arc::new(files.into_tls(&self.settings)?));
        Ok(true)
    }
}

/// Checks that the files named in `settings` can be used. Blocks.
pub fn check(settings: &Files) -> Result<(), CertificateError> {
    Contents::read(settings)?.into_tls(settings).map(|_| ())
}

/// The content of the files.
struct Contents {
    /// Certificate and key. The configuration has both or neither.
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
            hint: "set the certificate's file, or convert a DER file with `openssl x509 -inform der -in FILE -out NEW`",
        });
    }
    Ok(found)
}

/// Decodes a private key in PKCS#8, PKCS#1 or SEC1.
fn private_key(path: &Path, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, CertificateError> {
    PrivateKeyDer::from_pem_slice(bytes).map_err(|error| match error {
        pem::Error::NoItemsFound => CertificateError::Empty {
            setting: KEY,
            path: path.into(),
            wanted: "PEM private key without a password (`-----BEGIN PRIVATE KEY-----`)",
            hint: "set the key's file, or convert it with `openssl pkey -in FILE -out NEW`",
        },
        error => malformed(KEY, path, error),
    })
}

fn malformed(setting: &'static str, path: &Path, reason: impl fmt::Display) -> CertificateError {
    CertificateError::Malformed { setting, path: path.into(), reason: reason.to_string() }
}

fn unusable(path: &Path) -> impl Fn(rustls::Error) -> CertificateError {
    move |source| CertificateError::Unusable { path: path.into(), source }
}

#[cfg(test)]
mod tests;
