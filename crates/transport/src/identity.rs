//! The node's key pair on disk: libp2p's protobuf of a private key, in a file that only its owner may read.
//!
//! An identity is never overwritten. A node that loses it also loses the peer id that others have in their bootstrap
//! lists.

use dhtstore_host::files::{self, is_present};
use libp2p::identity::Keypair;
use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// The name of the file in the data directory, and of the systemd credential.
pub const FILE_NAME: &str = "identity.key";

/// Largest file that is read. An RSA key of 8,192 bits has 4.7 KB, and 7 KB in base64 inside JSON.
pub const MAX_FILE_BYTES: u64 = 64 * 1024;

/// An error of reading or creating an identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read.
    #[error("cannot read the identity {}: {source}; check its owner and permissions", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file is not a private key.
    #[error(
        "cannot use the identity {}: it is damaged or no private key ({reason}); restore it from a backup, or move it \
         away to start under a new peer id",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file or its directory cannot be written.
    #[error("cannot create the identity {}: {source}", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file exists already.
    #[error(
        "cannot create the identity {}: the file exists and is never overwritten; move it away if its peer id is no \
         longer wanted",
        .0.display()
    )]
    Exists(PathBuf),
}

/// A private key, together with the bytes it was decoded from, because libp2p cannot encode an RSA key again.
#[derive(Clone)]
pub struct Identity {
    /// The key pair.
    pub keypair: Keypair,
    protobuf: Vec<u8>,
}

impl std::fmt::Debug for Identity {
    /// Shows the public half only.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("peer_id", &self.keypair.public().to_peer_id()).finish_non_exhaustive()
    }
}

impl Identity {
    /// Returns a new Ed25519 key.
    pub fn generate() -> Result<Self, IdentityError> {
        let keypair = Keypair::generate_ed25519();
        let protobuf = keypair
            .to_protobuf_encoding()
            .map_err(|e| IdentityError::Damaged { path: PathBuf::from(FILE_NAME), reason: e.to_string() })?;
        Ok(Self { keypair, protobuf })
    }

    /// Decodes a private key from libp2p's protobuf: Ed25519, RSA, secp256k1 or ECDSA (NET-4). The error says what is
    /// wrong with it.
    pub fn from_protobuf(protobuf: Vec<u8>) -> Result<Self, String> {
        if protobuf.is_empty() {
            return Err("the file is empty".into());
        }
        let protobuf = without_repeated_half(protobuf);
        let keypair = Keypair::from_protobuf_encoding(&protobuf).map_err(|e| with_sources(&e))?;
        Ok(Self { keypair, protobuf })
    }

    /// Decodes a private key from that protobuf in base64, the form of Kubo's `Identity.PrivKey`.
    pub fn from_base64(text: &str) -> Result<Self, String> {
        use multibase::Base;
        // Some tools wrap long lines.
        let text: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let text = text.trim_end_matches('=');
        let bytes = Base::Base64.decode(text).map_err(|e| format!("not base64: {e}"))?;
        Self::from_protobuf(bytes)
    }

    /// Reads a key file in any of the forms in use: protobuf, base64 of it, or JSON with a `PrivKey` (a Kubo `config`,
    /// where it is in `Identity`, or the output of `ipfs key`).
    pub fn import(path: &Path) -> Result<Self, IdentityError> {
        let bytes = read_bounded(path)?;
        let damaged = |reason: String| IdentityError::Damaged { path: path.into(), reason };
        let protobuf_error = match Self::from_protobuf(bytes.clone()) {
            Ok(identity) => return Ok(identity),
            Err(error) => error,
        };
        let Ok(text) = std::str::from_utf8(&bytes) else { return Err(damaged(protobuf_error)) };
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.trim_start().starts_with('{') {
            let json: serde_json::Value = serde_json::from_str(text).map_err(|e| damaged(format!("not JSON: {e}")))?;
            let key = json.get("PrivKey").or_else(|| json.pointer("/Identity/PrivKey")).and_then(|k| k.as_str());
            let key = key.ok_or_else(|| damaged("the JSON has neither PrivKey nor Identity.PrivKey".into()))?;
            return Self::from_base64(key).map_err(damaged);
        }
        Self::from_base64(text).map_err(damaged)
    }

    /// Reads an identity that [`Identity::create`] wrote. Logs a warning if other users than its owner may read it.
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        let bytes = read_bounded(path)?;
        // systemd's credentials are 0440, in a directory that only the service can enter.
        let is_credential = credentials_dir().is_some_and(|dir| path.starts_with(dir));
        if !is_credential && fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0) {
            tracing::warn!(
                path = %path.display(),
                "other users can read the identity; run chmod 600 on it, and replace it if somebody may have copied it"
            );
        }
        Self::from_protobuf(bytes).map_err(|reason| {
            let reason = match Self::import(path) {
                Ok(_) => {
                    "the key is in another form; move the file away and import it with `dhtstore init --identity FILE`"
                        .into()
                }
                Err(_) => reason,
            };
            IdentityError::Damaged { path: path.into(), reason }
        })
    }

    /// Returns what [`Identity::create`] writes. It is a secret.
    pub fn protobuf(&self) -> &[u8] {
        &self.protobuf
    }

    /// Writes the identity (mode 0600), atomically and synced, and creates its directory (mode 0700) if it is missing.
    /// Never overwrites a file.
    pub fn create(&self, path: &Path) -> Result<(), IdentityError> {
        write_private_file(path, &self.protobuf).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => IdentityError::Exists(path.into()),
            _ => IdentityError::Create { path: path.into(), source },
        })
    }
}

/// Returns the path of the identity: the systemd credential `identity.key` if there is one, otherwise the file in the
/// data directory.
pub fn path(data_dir: &Path) -> PathBuf {
    let credential = credentials_dir().map(|dir| dir.join(FILE_NAME));
    credential.filter(|path| is_present(path)).unwrap_or_else(|| data_dir.join(FILE_NAME))
}

/// Returns the directory that systemd sets when the unit has `LoadCredential=`.
fn credentials_dir() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").filter(|dir| !dir.is_empty()).map(PathBuf::from)
}

/// Returns the identity, or `None` if there is no file. Creates nothing. A file that exists and cannot be reached (a
/// dangling link, a directory without permission) is an error.
pub fn load(data_dir: &Path) -> Result<Option<Keypair>, IdentityError> {
    let path = path(data_dir);
    if !is_present(&path) {
        return Ok(None);
    }
    Identity::load(&path).map(|identity| Some(identity.keypair))
}

/// Returns the identity. Creates an Ed25519 one if there is no file. A file that cannot be read or decoded is an error
/// and is left as it is.
pub fn load_or_create(data_dir: &Path) -> Result<Keypair, IdentityError> {
    if let Some(keypair) = load(data_dir)? {
        return Ok(keypair);
    }
    let identity = Identity::generate()?;
    match identity.create(&data_dir.join(FILE_NAME)) {
        Ok(()) => Ok(identity.keypair),
        // Another process created one first: use that.
        Err(IdentityError::Exists(path)) => Identity::load(&path).map(|identity| identity.keypair),
        Err(error) => Err(error),
    }
}

/// Writes a file that only its owner may read (mode 0600), and creates missing directories (mode 0700). The write is
/// atomic and synced: after a crash the file is complete or absent.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] if there is a file, which is left as it is.
pub fn write_private_file(path: &Path, content: &[u8]) -> io::Result<()> {
    try_write_private_file(path, content).map_err(|error| match error.kind() {
        kind @ io::ErrorKind::StorageFull => {
            io::Error::new(kind, "no space or no inodes left on the disk; free some and try again")
        }
        kind @ io::ErrorKind::QuotaExceeded => {
            io::Error::new(kind, "the disk quota is reached; raise it, or free some space, and try again")
        }
        _ => error,
    })
}

fn try_write_private_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    if path.symlink_metadata().is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    // The temporary file has mode 0600 from the start. Linking it fails if another process has created the file since.
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(dir)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path).map_err(|e| e.error)?;
    File::open(dir)?.sync_all()
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, IdentityError> {
    files::read_bounded(path, MAX_FILE_BYTES).map_err(|source| match source.kind() {
        io::ErrorKind::FileTooLarge => IdentityError::Damaged { path: path.into(), reason: source.to_string() },
        _ => IdentityError::Read { path: path.into(), source },
    })
}

/// Removes the second copy of the public half from an Ed25519 key of 96 bytes. Old versions of go-libp2p wrote such
/// keys.
fn without_repeated_half(protobuf: Vec<u8>) -> Vec<u8> {
    match protobuf.as_slice() {
        [0x08, 0x01, 0x12, 0x60, key @ ..] if key.len() == 96 && key[32..64] == key[64..] => {
            [&[0x08, 0x01, 0x12, 0x40], &key[..64]].concat()
        }
        _ => protobuf,
    }
}

/// Returns the text of an error and of all its causes.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RSA: &str = include_str!("../../../tests/fixtures/throwaway-rsa.base64");

    #[test]
    fn an_identity_is_created_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("a/b");
        let first = load_or_create(&data).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&data.join(FILE_NAME)), mode(&data)), (0o600, 0o700));
        assert_eq!(load_or_create(&data).unwrap().public(), first.public());
        assert_eq!(fs::read_dir(&data).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn net_4_every_kind_of_key_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        for keypair in [Keypair::generate_ed25519(), Keypair::generate_secp256k1(), Keypair::generate_ecdsa()] {
            let identity = Identity::from_protobuf(keypair.to_protobuf_encoding().unwrap()).unwrap();
            identity.create(&path).unwrap();
            assert_eq!(Identity::load(&path).unwrap().keypair.public(), keypair.public());
            fs::remove_file(&path).unwrap();
        }
        let rsa = Identity::from_base64(RSA).unwrap();
        rsa.create(&path).unwrap();
        let again = Identity::load(&path).unwrap();
        assert_eq!(again.keypair.key_type(), libp2p::identity::KeyType::RSA);
        assert_eq!(again.keypair.public(), rsa.keypair.public());
    }

    #[test]
    fn a_damaged_identity_is_an_error_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let good = Keypair::generate_ed25519().to_protobuf_encoding().unwrap();
        for bad in [&b""[..], b"garbage", &good[..good.len() - 1], &[0; 70_000]] {
            fs::write(&path, bad).unwrap();
            let error = load_or_create(dir.path()).unwrap_err();
            assert!(matches!(error, IdentityError::Damaged { .. }), "{error}");
            assert!(error.to_string().contains("identity.key"));
            assert_eq!(fs::read(&path).unwrap(), bad);
        }
    }

    #[test]
    fn an_identity_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        Identity::generate().unwrap().create(&path).unwrap();
        let before = fs::read(&path).unwrap();
        let error = Identity::generate().unwrap().create(&path).unwrap_err();
        assert!(matches!(error, IdentityError::Exists(_)));
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn every_form_of_key_file_is_imported() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in");
        let expected = Identity::from_base64(RSA).unwrap().keypair.public();
        let key = RSA.trim();
        let raw = Identity::from_base64(RSA).unwrap().protobuf;
        let wrapped: String =
            key.as_bytes().chunks(64).flat_map(|line| [line, b"\r\n"]).flatten().map(|&b| b as char).collect();
        let forms = [
            raw,
            wrapped.clone().into_bytes(),
            format!("\u{feff}{wrapped}").into_bytes(),
            RSA.as_bytes().to_vec(),
            format!("{{\"PrivKey\": \"{key}\"}}").into_bytes(),
            format!("{{\"Identity\": {{\"PeerID\": \"Qm\", \"PrivKey\": \"{key}\"}}}}").into_bytes(),
        ];
        for form in forms {
            fs::write(&path, form).unwrap();
            assert_eq!(Identity::import(&path).unwrap().keypair.public(), expected);
        }
        for bad in ["{\"Identity\": {}}", "{", "not base64!", ""] {
            fs::write(&path, bad).unwrap();
            assert!(matches!(Identity::import(&path), Err(IdentityError::Damaged { .. })), "{bad}");
        }
    }

    #[test]
    fn net_4_an_ed25519_key_with_its_public_half_twice_is_the_same_key() {
        let keypair = Keypair::generate_ed25519();
        let protobuf = keypair.to_protobuf_encoding().unwrap();
        let (key, public) = (&protobuf[4..], &protobuf[36..]);
        let twice = [&[0x08, 0x01, 0x12, 0x60], key, public].concat();
        let identity = Identity::from_protobuf(twice.clone()).unwrap();
        assert_eq!((identity.keypair.public(), identity.protobuf()), (keypair.public(), protobuf.as_slice()));
        let mut unlike = twice;
        *unlike.last_mut().unwrap() ^= 1;
        assert!(Identity::from_protobuf(unlike).is_err());
    }

    #[test]
    fn an_identity_that_cannot_be_reached_is_an_error_and_no_reason_for_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/nonexistent/secret", dir.path().join(FILE_NAME)).unwrap();
        assert!(matches!(load(dir.path()), Err(IdentityError::Read { .. })));
        assert!(matches!(load_or_create(dir.path()), Err(IdentityError::Read { .. })));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Identity::from_protobuf(bytes.clone());
            let _ = Identity::from_base64(&String::from_utf8_lossy(&bytes));
        }
    }
}
