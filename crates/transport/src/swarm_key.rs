//! `swarm.key`: the pre-shared key of a private network. Kubo and other libp2p programs use the same format (libp2p
//! specification `pnet/Private-Networks-PSK-V1`): a line with the version, a line with the encoding, then the key.

use dhtstore_host::files::read_bounded;
use libp2p::pnet::{Fingerprint, PreSharedKey};
use rand::TryRngCore;
use std::{
    fmt, fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// The file's usual name, here and in a Kubo repository.
pub const FILE_NAME: &str = "swarm.key";

const VERSION: &str = "/key/swarm/psk/1.0.0/";
const KEY_BYTES: usize = 32;
/// Largest file that is read. A key file has about 100 bytes.
pub const MAX_FILE_BYTES: u64 = 4 * 1024;

/// An error of reading or creating a swarm key.
#[derive(Debug, thiserror::Error)]
pub enum SwarmKeyError {
    /// The file cannot be read.
    #[error(
        "cannot read the swarm key {}: {source}; copy the file again from another node of the private network, or \
         correct swarm_key",
        path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file is not a swarm key.
    #[error(
        "cannot use the swarm key {}: line {line}: {reason}; copy the file again from another node of the private \
         network",
        path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line with the error, counted from 1.
        line: u8,
        /// What is wrong with it.
        reason: String,
    },
    /// The file cannot be written.
    #[error("cannot create the swarm key {}: {source}", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file exists already.
    #[error(
        "cannot create the swarm key {}: the file exists and is never overwritten; move it away to make a new private \
         network",
        .0.display()
    )]
    Exists(PathBuf),
    /// The system's random number generator failed.
    #[error("cannot make a swarm key: the system's random number generator failed: {0}")]
    Random(#[source] rand::rand_core::OsError),
}

/// The pre-shared key of a private network.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SwarmKey([u8; KEY_BYTES]);

impl fmt::Debug for SwarmKey {
    /// Shows the fingerprint, never the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SwarmKey").field(&self.fingerprint().to_string()).finish()
    }
}

impl SwarmKey {
    /// Returns a new random key.
    pub fn generate() -> Result<Self, SwarmKeyError> {
        let mut key = [0; KEY_BYTES];
        rand::rngs::OsRng.try_fill_bytes(&mut key).map_err(SwarmKeyError::Random)?;
        Ok(Self(key))
    }

    /// Reads a key from the content of its file. The error is the number of the line, from 1, and what is wrong with
    /// it.
    pub fn parse(bytes: &[u8]) -> Result<Self, (u8, String)> {
        // Some editors begin a file with a byte order mark.
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let (version, rest) = split_line(bytes);
        if version != VERSION.as_bytes() {
            return Err((1, format!("expected {VERSION}")));
        }
        let (encoding, body) = split_line(rest);
        let decode = |base: multibase::Base| {
            let text = std::str::from_utf8(body).map_err(|_| (3, "not text".to_owned()))?;
            let text = text.trim().trim_end_matches('=');
            base.decode(text).map_err(|e| (3, format!("{e}")))
        };
        let key = match encoding {
            b"/base16/" => {
                let lower = body.to_ascii_lowercase();
                let text = std::str::from_utf8(&lower).map_err(|_| (3, "not text".to_owned()))?;
                multibase::Base::Base16Lower.decode(text.trim()).map_err(|e| (3, format!("{e}")))?
            }
            b"/base64/" => decode(multibase::Base::Base64)?,
            // Raw bytes may end in bytes that look like a line end. Kubo reads the first 32 only.
            b"/bin/" => body.iter().take(KEY_BYTES).copied().collect(),
            _ => return Err((2, "expected /base16/, /base64/ or /bin/".into())),
        };
        let length = key.len();
        <[u8; KEY_BYTES]>::try_from(key)
            .map(Self)
            .map_err(|_| (3, format!("the key has {length} bytes, not {KEY_BYTES}")))
    }

    /// Reads a key file. Logs a warning if every user of the machine may read it.
    pub fn load(path: &Path) -> Result<Self, SwarmKeyError> {
        let failed = |source| SwarmKeyError::Read { path: path.into(), source };
        let bytes = read_bounded(path, MAX_FILE_BYTES).map_err(failed)?;
        let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
        if mode & 0o007 != 0 {
            tracing::warn!(
                path = %path.display(),
                "every user of this machine can read the swarm key; run chmod 600 on it"
            );
        }
        Self::parse(&bytes).map_err(|(line, reason)| SwarmKeyError::Malformed { path: path.into(), line, reason })
    }

    /// Writes the key file (mode 0600, base16), atomically and synced. Never overwrites a file.
    pub fn create(&self, path: &Path) -> Result<(), SwarmKeyError> {
        super::identity::write_private_file(path, self.to_file().as_bytes()).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => SwarmKeyError::Exists(path.into()),
            _ => SwarmKeyError::Create { path: path.into(), source },
        })
    }

    /// Returns the content of a key file, in base16.
    pub fn to_file(&self) -> String {
        self.pre_shared_key().to_key_file()
    }

    /// Returns the key in the type of libp2p's pnet.
    pub fn pre_shared_key(&self) -> PreSharedKey {
        PreSharedKey::new(self.0)
    }

    /// Returns a fingerprint that tells keys apart without showing them. Kubo prints the same one when it starts.
    pub fn fingerprint(&self) -> Fingerprint {
        self.pre_shared_key().fingerprint()
    }
}

/// Returns the first line without its line end (LF or CRLF), and the rest.
fn split_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|b| *b == b'\n').unwrap_or(bytes.len());
    let rest = bytes.get(end + 1..).unwrap_or_default();
    (bytes[..end].trim_ascii_end(), rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(encoding: &str, body: &[u8]) -> Vec<u8> {
        [format!("{VERSION}\n{encoding}\n").as_bytes(), body].concat()
    }

    proptest! {
        #[test]
        fn the_three_bodies_are_the_same_key(key: [u8; 32]) {
            let hex = multibase::Base::Base16Lower.encode(key);
            let base64 = multibase::Base::Base64Pad.encode(key);
            for text in [
                file("/base16/", hex.as_bytes()),
                file("/base16/", format!("{}\r\n", hex.to_uppercase()).as_bytes()),
                file("/base64/", base64.as_bytes()),
                file("/base64/", format!("{base64}\n").as_bytes()),
                file("/bin/", &key),
                file("/bin/", &[&key[..], b"\n"].concat()),
            ] {
                prop_assert_eq!(SwarmKey::parse(&text), Ok(SwarmKey(key)));
            }
            let marked = [&b"\xef\xbb\xbf"[..], SwarmKey(key).to_file().as_bytes()].concat();
            prop_assert_eq!(SwarmKey::parse(&marked), Ok(SwarmKey(key)));
            prop_assert_eq!(SwarmKey::parse(SwarmKey(key).to_file().as_bytes()), Ok(SwarmKey(key)));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), encoding in 0usize..3) {
            let _ = SwarmKey::parse(&bytes);
            let _ = SwarmKey::parse(&file(["/base16/", "/base64/", "/bin/"][encoding], &bytes));
        }
    }

    #[test]
    fn errors_name_the_line() {
        let line = |bytes: &[u8]| SwarmKey::parse(bytes).unwrap_err().0;
        assert_eq!(line(b""), 1);
        assert_eq!(line(b"/key/swarm/psk/2.0.0/\n/base16/\n00"), 1);
        assert_eq!(line(&file("/base58/", b"xx")), 2);
        assert_eq!(line(&file("/base16/", b"zz")), 3);
        assert_eq!(line(&file("/base16/", b"00ff")), 3);
        assert_eq!(line(&file("/bin/", b"short")), 3);
        assert_eq!(line(&file("/base64/", b"!!")), 3);
    }

    #[test]
    fn a_key_file_is_private_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let key = SwarmKey::generate().unwrap();
        key.create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(SwarmKey::load(&path).unwrap(), key);
        assert!(matches!(SwarmKey::generate().unwrap().create(&path), Err(SwarmKeyError::Exists(_))));
        assert_eq!(SwarmKey::load(&path).unwrap(), key);
        assert!(!format!("{key:?}").contains(&key.to_file()[31..60]));
    }
}
