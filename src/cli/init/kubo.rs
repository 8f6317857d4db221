//! Reads a Kubo repository: its identity, swarm key, bootstrap peers and addresses.

use crate::{
    cli::error::{CliError, Result},
    config::{Profile, can_reach_us, defaults, is_public_bootstrapper},
    files::{is_present, read_bounded},
    kad::peer_id::{parse_multiaddr, parse_peer_id},
    node::no_announce,
    transport::{
        addresses::{can_dial, can_listen, is_websocket},
        identity::Identity,
        swarm_key::{self, SwarmKey},
    },
};
use libp2p::Multiaddr;
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpStream},
    os::unix::fs::MetadataExt,
    path::Path,
    time::Duration,
};

/// Largest Kubo configuration that is read. A usual one has some 5 KB; the limit leaves room for very long lists.
const MAX_CONFIG_BYTES: u64 = 4 << 20;
/// Time to wait for Kubo's API, which listens on this machine and answers at once or never.
const API_PATIENCE: Duration = Duration::from_millis(500);
/// Kubo's placeholder where AutoConf fills in the public network's values.
const AUTO: &str = "auto";

/// Contents of a Kubo repository.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) identity: Identity,
    pub(crate) swarm_key: Option<SwarmKey>,
    /// The text of `dhtstore.toml`.
    pub(crate) config: String,
    /// Notes for the user, one line each.
    pub(crate) notes: Vec<String>,
}

/// The parts of Kubo's `config` that are used.
#[derive(Deserialize, Debug)]
#[serde(rename_all = "PascalCase")]
struct KuboConfig {
    identity: KuboIdentity,
    #[serde(default)]
    bootstrap: Option<Vec<String>>,
    #[serde(default)]
    addresses: KuboAddresses,
    /// All other sections.
    #[serde(flatten)]
    others: BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize, Debug)]
#[serde(rename_all = "PascalCase")]
struct KuboIdentity {
    #[serde(rename = "PeerID", default)]
    peer_id: String,
    #[serde(default)]
    priv_key: String,
}

/// Go writes an empty list as `null`.
#[derive(Deserialize, Default, Debug)]
#[serde(rename_all = "PascalCase", default)]
struct KuboAddresses {
    swarm: Option<Vec<String>>,
    announce: Option<Vec<String>>,
    append_announce: Option<Vec<String>>,
    no_announce: Option<Vec<String>>,
    /// All other fields, such as the addresses of Kubo's API and gateway.
    #[serde(flatten)]
    others: BTreeMap<String, serde_json::Value>,
}

/// Reads the repository and writes nothing. Fails while Kubo runs: two nodes with one identity break each other.
pub(crate) fn read(repository: &Path, profile: Option<Profile>) -> Result<Taken> {
    let kubo = read_config(&repository.join("config"))?;
    refuse_running(repository)?;
    let identity = identity(repository, &kubo.identity)?;
    let swarm_key_path = repository.join(swarm_key::FILE_NAME);
    let swarm_key = is_present(&swarm_key_path).then(|| SwarmKey::load(&swarm_key_path)).transpose()?;
    let mut notes = Vec::new();
    let config =
        Translation { kubo: &kubo, private: swarm_key.is_some(), profile, notes: &mut notes }.write(repository);
    let sections = kubo.others.iter().map(|(name, value)| (name.clone(), value));
    let addresses = kubo.addresses.others.iter().map(|(name, value)| (format!("Addresses.{name}"), value));
    let left_out: Vec<String> =
        sections.chain(addresses).filter(|(_, value)| is_set(value)).map(|(name, _)| name).collect();
    if !left_out.is_empty() {
        notes.push(format!(
            "Kubo sections that are left out: {}; compare them with `dhtstore config default`",
            left_out.join(", ")
        ));
    }
    notes.push(format!(
        "do not start the Kubo node in {} again with this identity: two nodes with one peer id break each other's \
         connections",
        repository.display()
    ));
    Ok(Taken { identity, swarm_key, config, notes })
}

/// Returns whether a section of the configuration has a value.
fn is_set(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Null => false,
        serde_json::Value::Object(fields) => fields.values().any(is_set),
        serde_json::Value::Array(items) => !items.is_empty(),
        serde_json::Value::String(text) => !text.is_empty(),
        _ => true,
    }
}

fn read_config(path: &Path) -> Result<KuboConfig> {
    let bytes = read_bounded(path, MAX_CONFIG_BYTES).map_err(|e| {
        CliError::data(format_args!(
            "cannot read {}: {e}; give the path of a Kubo repository ($IPFS_PATH)",
            path.display()
        ))
    })?;
    serde_json::from_slice(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes)).map_err(|e| {
        CliError::data(format_args!("cannot read {} as a Kubo configuration: {e}; correct the file", path.display()))
    })
}

fn identity(repository: &Path, kubo: &KuboIdentity) -> Result<Identity> {
    let place = repository.join("config");
    if kubo.priv_key.is_empty() {
        return Err(CliError::data(format_args!(
            "cannot read the identity in {}: Identity.PrivKey is empty; restore the file from a backup",
            place.display()
        )));
    }
    let identity = Identity::from_base64(&kubo.priv_key).map_err(|e| {
        CliError::data(format_args!(
            "cannot read the identity in {}: Identity.PrivKey is damaged ({e}); restore the file from a backup",
            place.display()
        ))
    })?;
    let peer = identity.keypair.public().to_peer_id().to_string();
    let same = kubo.peer_id.is_empty() || parse_peer_id(&kubo.peer_id).is_ok_and(|id| id.to_string() == peer);
    if !same {
        return Err(CliError::data(format_args!(
            "cannot read the identity in {}: Identity.PrivKey belongs to {peer}, but Identity.PeerID is {}; correct \
             the wrong one",
            place.display(),
            kubo.peer_id
        )));
    }
    Ok(identity)
}

fn refuse_running(repository: &Path) -> Result<()> {
    let how = if is_locked(&repository.join("repo.lock")) {
        "repo.lock is held"
    } else if api_answers(&repository.join("api")) {
        "its API answers"
    } else {
        return Ok(());
    };
    Err(CliError::try_again(format_args!(
        "cannot take over the identity in {}: Kubo still runs there ({how}); stop it with `ipfs shutdown`, then try \
         again",
        repository.display()
    )))
}

/// Returns whether Kubo holds its POSIX lock on the file, which Linux lists in `/proc/locks` by device and inode. On
/// other systems [`api_answers`] decides.
fn is_locked(path: &Path) -> bool {
    let (Ok(meta), Ok(locks)) = (std::fs::metadata(path), std::fs::read_to_string("/proc/locks")) else { return false };
    let inode = meta.ino().to_string();
    // `1: POSIX  ADVISORY  WRITE 1234 08:01:5678 0 EOF`. Only the inode is compared: on some file systems the device
    // number differs.
    let held = |line: &str| line.split_whitespace().any(|word| word.splitn(3, ':').nth(2) == Some(&inode));
    locks.lines().any(held)
}

/// Returns whether Kubo's API answers at the address in the file. The file alone proves nothing: it stays behind after
/// a crash.
fn api_answers(path: &Path) -> bool {
    use libp2p::multiaddr::Protocol;
    let Ok(text) = std::fs::read_to_string(path) else { return false };
    let Ok(addr) = text.trim().parse::<Multiaddr>() else { return false };
    let socket = match addr.iter().collect::<Vec<_>>().as_slice() {
        [Protocol::Ip4(ip), Protocol::Tcp(port), ..] => SocketAddr::from((*ip, *port)),
        [Protocol::Ip6(ip), Protocol::Tcp(port), ..] => SocketAddr::from((*ip, *port)),
        _ => return false,
    };
    TcpStream::connect_timeout(&socket, API_PATIENCE).is_ok()
}

/// Translates Kubo's settings to ours.
struct Translation<'a> {
    kubo: &'a KuboConfig,
    private: bool,
    profile: Option<Profile>,
    notes: &'a mut Vec<String>,
}

impl Translation<'_> {
    fn write(mut self, repository: &Path) -> String {
        let listed = self.kubo.bootstrap.clone().unwrap_or_default();
        let auto = listed.iter().any(|addr| addr == AUTO);
        let mut bootstrap = self.addresses("Bootstrap", &listed, ends_in_peer);
        let profile = self.profile.unwrap_or_else(|| self.guess_profile(auto, &bootstrap));
        if auto {
            self.notes.push(match profile {
                Profile::Amino => {
                    "Bootstrap \"auto\" is replaced by the public bootstrap peers of profile \"amino\"".into()
                }
                Profile::Private => {
                    "Bootstrap \"auto\" is left out: it means the public network, and this one is private".into()
                }
            });
        }
        if profile == Profile::Amino && (auto || bootstrap.is_empty()) {
            bootstrap.splice(0..0, defaults::AMINO_BOOTSTRAP.map(String::from));
        }
        let mut table = toml::Table::new();
        let mut put = |key: &str, list: Vec<String>| {
            if !list.is_empty() {
                table.insert(key.into(), list.into());
            }
        };
        let addresses = &self.kubo.addresses;
        let [listen, announce, append, hidden] =
            [&addresses.swarm, &addresses.announce, &addresses.append_announce, &addresses.no_announce]
                .map(|list| list.clone().unwrap_or_default());
        put("bootstrap", bootstrap);
        put("listen", self.listen(&listen));
        put("announce", self.addresses("Addresses.Announce", &announce, can_reach_us));
        put("append_announce", self.addresses("Addresses.AppendAnnounce", &append, can_reach_us));
        put(
            "no_announce",
            self.addresses("Addresses.NoAnnounce", &hidden, |rule| !matches!(no_announce::range(rule), Some(Err(_)))),
        );
        format!(
            "# Taken over from the Kubo repository {}. All settings: `dhtstore config default`.\n\nprofile = \
             \"{}\"\n{table}",
            repository.display(),
            profile.name()
        )
    }

    /// Translates the listen addresses. Returns an empty list if they equal our defaults.
    fn listen(&mut self, listed: &[String]) -> Vec<String> {
        // Kubo's WebSockets may share a port with TCP and have no certificate file: the operator must set them up
        // again.
        let usable = |addr: &Multiaddr| can_listen(addr) && !is_websocket(addr);
        let mut listen = self.addresses("Addresses.Swarm", listed, usable);
        let is_default = |list: &[String]| {
            list.len() == defaults::LISTEN.len() && defaults::LISTEN.iter().all(|addr| list.iter().any(|a| a == addr))
        };
        if is_default(&listen) {
            return Vec::new();
        }
        if self.private {
            let udp: Vec<String> = listen.extract_if(.., |text| text.contains("/udp/")).collect();
            let note = |text| format!("Addresses.Swarm: {text} is left out: QUIC does not work in private networks");
            self.notes.extend(udp.into_iter().map(note));
        }
        listen
    }

    /// Returns amino for a node that bootstraps from the public network and has no swarm key; otherwise private.
    fn guess_profile(&mut self, auto: bool, bootstrap: &[String]) -> Profile {
        let is_public = |text: &String| parse_multiaddr(text).is_ok_and(|addr| is_public_bootstrapper(&addr));
        let public = auto || bootstrap.iter().any(is_public);
        if self.private || !public {
            return Profile::Private;
        }
        self.notes
            .push("this Kubo node is on the public network, so profile \"amino\" is set (--profile changes it)".into());
        Profile::Amino
    }

    /// Returns the addresses that dhtstore can use, and adds a note for each of the others.
    fn addresses(&mut self, name: &str, list: &[String], usable: fn(&Multiaddr) -> bool) -> Vec<String> {
        let mut taken: Vec<String> = Vec::new();
        for text in list.iter().filter(|text| *text != AUTO) {
            match parse_multiaddr(text) {
                Ok(addr) if usable(&addr) => {
                    // Written as dhtstore prints it: `/ipfs/ID` becomes `/p2p/ID`.
                    let text = addr.to_string();
                    if !taken.contains(&text) {
                        taken.push(text);
                    }
                }
                _ => self.notes.push(format!("{name}: {text} is left out: dhtstore cannot use it")),
            }
        }
        taken
    }
}

fn ends_in_peer(addr: &Multiaddr) -> bool {
    matches!(addr.iter().last(), Some(libp2p::multiaddr::Protocol::P2p(_))) && can_dial(addr)
}
