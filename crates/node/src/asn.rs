//! Finds the autonomous system that announces an IPv6 address, in a database in MaxMind's format (RT-6).
//!
//! The whole file is read into memory at start, because look-ups happen under locks and on tasks that must not wait for
//! a disk. A newer file is read at the next start; few networks change hands in between.

use super::NodeError;
use crate::{
    clock::{Clock, UnixTime},
    files::read_bounded,
    kad::scope::{AutonomousSystems, IpGroups, Reach, ip_reach},
};
use maxminddb::{LookupResult, MaxMindDbError, Reader, WithinOptions};
use serde::Deserialize;
use std::{
    io,
    net::Ipv6Addr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tracing::{info, warn};

/// Largest file that is read. Databases of autonomous systems have 10 to 60 MB; a larger file is some other database.
const MAX_FILE_BYTES: u64 = 256 * 1024 * 1024;

/// Age from which the node warns about a file. Providers come and go slowly; after half a year the newest are missing.
const OLD: Duration = Duration::from_secs(180 * 86_400);

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AsnError {
    /// It cannot be read.
    #[error("cannot read the database of autonomous systems {}: {source}; {NEXT_STEP}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It does not parse.
    #[error("cannot use {}: damaged, or not in MMDB format ({source}); {NEXT_STEP}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: MaxMindDbError,
    },
    /// It is too large, or names no autonomous system of any IPv6 network.
    #[error("cannot use {}: {reason}; {NEXT_STEP}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// The next step for every error.
const NEXT_STEP: &str = "replace it with a file that names the autonomous systems of IPv6 networks \
    (GeoLite2-ASN.mmdb of MaxMind, the ASN Lite database of DB-IP, the Lite database of IPinfo, or any other in MMDB \
    format with `autonomous_system_number` or `asn`), or unset routing.asn_database: then IPv6 addresses are grouped \
    by /32";

/// A database in memory.
#[derive(Debug)]
pub struct AsnDatabase {
    reader: Reader<Vec<u8>>,
    networks: usize,
}

/// The fields that name the autonomous system of an entry: `autonomous_system_number` in the files of MaxMind and
/// DB-IP, `asn` in those of IPinfo.
#[derive(Deserialize)]
struct Row {
    autonomous_system_number: Option<Asn>,
    asn: Option<Asn>,
}

/// An AS number: a number of any width, or text like `AS64496`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Asn {
    Number(u32),
    Text(String),
}

/// Returns the AS number of an entry. 0 is reserved and counts as none (RFC 7607).
fn number(found: &LookupResult<'_, Vec<u8>>) -> Result<Option<u32>, MaxMindDbError> {
    let row: Option<Row> = match found.decode() {
        // An entry of some other shape names no system.
        Err(MaxMindDbError::Decoding { .. }) => None,
        row => row?,
    };
    let number = row.and_then(|row| match row.autonomous_system_number.or(row.asn)? {
        Asn::Number(number) => Some(number),
        Asn::Text(text) => text.trim_start_matches(['A', 'S', 'a', 's']).parse().ok(),
    });
    Ok(number.filter(|number| *number != 0))
}

impl AsnDatabase {
    /// Reads the file at `path`, at most 256 MiB, and reads every entry once. A file that is damaged, or that names no
    /// system of an IPv6 network, is therefore refused here and not at a later look-up. Blocks: 0.6 s for 11 MB and
    /// 100,000 networks in a debug build.
    pub fn load(path: &Path) -> Result<Self, AsnError> {
        let unfit = |reason: String| AsnError::Unfit { path: path.into(), reason };
        let bytes = read_bounded(path, MAX_FILE_BYTES).map_err(|source| match source.kind() {
            io::ErrorKind::FileTooLarge => unfit(format!("larger than {} MiB", MAX_FILE_BYTES >> 20)),
            _ => AsnError::Read { path: path.into(), source },
        })?;
        let damaged = |source: MaxMindDbError| AsnError::Damaged { path: path.into(), source };
        let reader = Reader::from_source(bytes).map_err(damaged)?;
        let networks = named_networks(&reader).map_err(damaged)?;
        if networks == 0 {
            let kind = &reader.metadata().database_type;
            return Err(unfit(format!("names no autonomous system of any IPv6 network (its type is {kind:?})")));
        }
        Ok(Self { reader, networks })
    }

    /// Returns how long ago the database was built.
    fn age(&self, now: UnixTime) -> Duration {
        Duration::from_secs(u64::from(now.0).saturating_sub(self.reader.metadata().build_epoch))
    }
}

/// Counts the global IPv6 networks that have an AS number. Reads every entry.
fn named_networks(reader: &Reader<Vec<u8>>) -> Result<usize, MaxMindDbError> {
    // Each node of the search tree leads to at most two networks; a tree that yields more has a loop.
    let most = 2 * reader.metadata().node_count as usize + 2;
    let mut named = 0;
    for (n, found) in reader.networks(WithinOptions::default())?.enumerate() {
        if n > most {
            return Err(MaxMindDbError::invalid_database("its search tree has a loop"));
        }
        let found = found?;
        let global = ip_reach(found.network()?.ip()) == Some(Reach::Public);
        named += usize::from(number(&found)?.is_some() && global && found.network()?.is_ipv6());
    }
    Ok(named)
}

impl AutonomousSystems for AsnDatabase {
    fn number(&self, ip: Ipv6Addr) -> Option<u32> {
        // `load` has read every entry, so that no look-up fails; if one does, the system counts as unknown.
        number(&self.reader.lookup(ip.into()).ok()?).ok()?
    }
}

/// Returns how the node groups addresses: by the database at `path` (`routing.asn_database`) if it is set.
pub(super) async fn ip_groups(path: Option<PathBuf>, clock: &dyn Clock) -> Result<IpGroups, NodeError> {
    let Some(path) = path else { return Ok(IpGroups::default()) };
    let loaded = tokio::task::spawn_blocking(move || AsnDatabase::load(&path).map(|database| (path, database)));
    let (path, database) = loaded.await.map_err(|_| NodeError::Stopped)??;
    let (age, kind) = (database.age(clock.wall()), &database.reader.metadata().database_type);
    info!(path = %path.display(), kind, networks = database.networks, "IPv6 peers are grouped by autonomous system");
    if age > OLD {
        let days = age.as_secs() / 86_400;
        warn!(
            path = %path.display(),
            days,
            "the database of autonomous systems is old; networks newer than it are grouped by /32; replace the file"
        );
    }
    Ok(IpGroups::new(Arc::new(database)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the path of a fixture. All of them hold the same invented networks; see `tests/fixtures/README.md`.
    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/asn").join(name)
    }

    #[track_caller]
    fn refused(path: &Path, words: &[&str]) {
        let text = AsnDatabase::load(path).unwrap_err().to_string();
        for word in words.iter().chain(&["GeoLite2-ASN", "routing.asn_database"]) {
            assert!(text.contains(word), "{word:?} is not in {text:?}");
        }
    }

    #[test]
    fn rt_6_systems_are_read_as_numbers_and_as_text_and_ip4_goes_on_by_16_bits() {
        for name in ["number.mmdb", "text.mmdb"] {
            let database = AsnDatabase::load(&fixture(name)).unwrap();
            let of = |ip: &str| database.number(ip.parse().unwrap());
            assert_eq!((of("2a00:1000::1"), of("2a00:2000:ffff::1")), (Some(64_496), Some(64_496)), "{name}");
            assert_eq!((of("2a00:3000::1"), of("2a00:3000:8000::1")), (Some(64_497), Some(4_200_000_001)), "{name}");
            assert_eq!((of("2a00:4000::1"), of("2a00:5000::1")), (None, None), "{name}: no system, and AS 0");
            let groups = IpGroups::new(Arc::new(database));
            let group = |text: &str| groups.of(&text.parse().unwrap());
            assert_eq!(group("/ip6/2a00:1000::1/tcp/1"), group("/ip6/2a00:2000::1/udp/1/quic-v1"));
            assert_ne!(group("/ip6/2a00:3000::1/tcp/1"), group("/ip6/2a00:3000:8000::1/tcp/1"));
            assert_eq!(
                group("/ip6/2a00:4000::1/tcp/1"),
                IpGroups::default().of(&"/ip6/2a00:4000::/tcp/1".parse().unwrap())
            );
            // The file puts these in one system.
            assert_ne!(group("/ip4/1.1.0.1/tcp/1"), group("/ip4/1.2.0.1/tcp/1"));
        }
    }

    #[test]
    fn what_is_no_database_of_systems_is_refused_with_the_next_step() {
        refused(Path::new("/nonexistent/asn.mmdb"), &["cannot read", "/nonexistent/asn.mmdb"]);
        refused(Path::new(env!("CARGO_MANIFEST_DIR")), &["cannot read"]);
        refused(&fixture("make.py"), &["damaged, or not in MMDB format"]);
        refused(&fixture("country.mmdb"), &["no autonomous system", "Test-Country"]);
        refused(&fixture("ip4.mmdb"), &["of any IPv6 network"]);
    }

    #[test]
    fn a_file_damaged_anywhere_is_refused_or_read_and_never_panics() {
        let dir = tempfile::tempdir().unwrap();
        let (path, whole) = (dir.path().join("x.mmdb"), std::fs::read(fixture("number.mmdb")).unwrap());
        let mut refusals = 0;
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0xa5;
            std::fs::write(&path, &damaged).unwrap();
            match AsnDatabase::load(&path) {
                Ok(database) => drop(database.number("2a00:1000::1".parse().unwrap())),
                Err(_) => refusals += 1,
            }
        }
        assert!(refusals > whole.len() / 10, "{refusals} of {}", whole.len());
        // Cut short: the metadata are at the end.
        std::fs::write(&path, &whole[..whole.len() - 200]).unwrap();
        refused(&path, &["damaged"]);
    }

    #[test]
    fn the_age_is_that_of_the_data() {
        let database = AsnDatabase::load(&fixture("number.mmdb")).unwrap();
        // 2026-01-01, as make.py sets it.
        let built = 1_767_225_600;
        assert_eq!(database.age(UnixTime(built + 86_400)), Duration::from_secs(86_400));
        assert_eq!(database.age(UnixTime(built - 1)), Duration::ZERO, "a clock that is behind makes no file old");
    }
}
