//! Checks whether the configuration of one machine fits another.

use super::{
    super::{Context, error::Result},
    contents::Contents,
};
use crate::{
    config::{
        Config,
        file::{FILE_NAME as CONFIG, Loaded, Origin, Sources},
    },
    node::asn::AsnDatabase,
    transport::{
        certificate,
        swarm_key::{FILE_NAME as SWARM_KEY, SwarmKey},
    },
};
use libp2p::{Multiaddr, multiaddr::Protocol};
use std::{net::IpAddr, path::Path};

/// Reports on stderr where the configuration is, whether it is in effect, and which settings do not fit. `before` was
/// in effect before the restore.
pub fn tell(contents: &Contents, dir: &Path, before: &Loaded, context: &Context) -> Result<()> {
    let path = dir.join(CONFIG);
    let loaded = match context.sources().load_detailed() {
        Ok(loaded) => loaded,
        Err(error) => {
            context.notice(format_args!("warning: the node cannot start with its configuration: {error}"));
            return Ok(());
        }
    };
    match (&contents.config, &loaded.file) {
        (None, Some(file)) => {
            context.notice(format_args!("the backup has no configuration; {} is in effect", file.display()))
        }
        (None, None) => context.notice("the backup has no configuration; the defaults are in effect"),
        (Some(_), Some(file)) if std::path::absolute(file).is_ok_and(|file| file == path) => {
            context.notice(format_args!("the configuration is {}", path.display()));
            if let Some(old) = before.file.as_ref() {
                context.notice(format_args!(
                    "warning: {} is no longer read: the restored configuration takes precedence",
                    old.display()
                ));
            }
            let alone = Sources { file: Some(path), ..Sources::default() }.load_detailed();
            if let Some(other) = alone.ok().and_then(|alone| elsewhere(&alone, dir)) {
                context.notice(format_args!("warning: {other}"));
            }
        }
        (Some(_), other) => {
            let other = other.as_ref().map_or("the defaults".into(), |file| file.display().to_string());
            context.notice(format_args!(
                "warning: the configuration of the backup, {}, is not the one that is read ({other}); compare them, \
                 or name it with --config",
                path.display()
            ));
        }
    }
    for warning in &loaded.warnings {
        context.notice(format_args!("warning: {}: {warning}", loaded.origin(warning.key)));
    }
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let ours: Vec<IpAddr> = interfaces.iter().map(if_addrs::Interface::ip).collect();
    for warning in misfits(&loaded.config, contents.swarm_key.as_ref(), dir, &ours) {
        context.notice(format_args!("warning: {warning}"));
    }
    context.notice("start the node with `dhtstore run`");
    Ok(())
}

/// Returns a warning if the restored configuration names another data directory.
fn elsewhere(alone: &Loaded, dir: &Path) -> Option<String> {
    let is_set = matches!(alone.origin("data_dir"), Origin::File(_)) && alone.config.data_dir != dir;
    is_set.then(|| {
        format!(
            "the restored configuration has data_dir = {}; without --data-dir the node does not run in {}; correct \
             data_dir",
            alone.config.data_dir.display(),
            dir.display()
        )
    })
}

/// Returns the settings that do not fit a machine with the addresses `ours`.
fn misfits(config: &Config, swarm_key: Option<&SwarmKey>, dir: &Path, ours: &[IpAddr]) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(path) = &config.swarm_key {
        let restored = match swarm_key {
            Some(_) => format!(
                "; the key of the backup is {}: name that file, or unset swarm_key",
                dir.join(SWARM_KEY).display()
            ),
            None => String::new(),
        };
        match (SwarmKey::load(path), swarm_key) {
            (Err(error), _) => found.push(format!("swarm_key: {error}{restored}")),
            (Ok(there), Some(key)) if there != *key => {
                found.push(format!("swarm_key: {} holds another key than the backup{restored}", path.display()));
            }
            _ => {}
        }
    }
    if let Err(error) = certificate::check(&config.websocket.files()) {
        found.push(error.to_string());
    }
    if let Some(Err(error)) = config.routing.asn_database.as_ref().map(|path| AsnDatabase::load(path)) {
        found.push(format!("routing.asn_database: {error}"));
    }
    if let Some(parent) = config.control.socket.as_ref().and_then(|path| path.parent()).filter(|path| !path.is_dir()) {
        found.push(format!(
            "control.socket: there is no directory {}; create it, or unset control.socket",
            parent.display()
        ));
    }
    for addr in &config.listen {
        if let Some(ip) = ip(addr).filter(|ip| !ip.is_unspecified() && !ours.contains(ip)) {
            found.push(format!("listen: {addr}: this machine has no address {ip}; correct listen"));
        }
    }
    let announced = [
        ("announce", &config.announce),
        ("append_announce", &config.append_announce),
        ("provide.addresses", &config.provide.addresses),
    ];
    for (key, addrs) in announced {
        let foreign: Vec<String> = addrs
            .iter()
            .filter(|addr| ip(addr).is_none_or(|ip| !ours.contains(&ip)))
            .map(ToString::to_string)
            .collect();
        if !foreign.is_empty() {
            found.push(format!("{key} is {}: check that it leads to this machine", foreign.join(", ")));
        }
    }
    found
}

fn ip(addr: &Multiaddr) -> Option<IpAddr> {
    match addr.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Profile, Websocket};

    #[test]
    fn what_does_not_fit_another_machine_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let ours: [IpAddr; 1] = ["192.0.2.1".parse().unwrap()];
        let fits = Config::defaults(Profile::Private);
        assert_eq!(misfits(&fits, None, dir.path(), &ours), Vec::<String>::new());
        let addr = |text: &str| text.parse::<Multiaddr>().unwrap();
        let config = Config {
            listen: vec![addr("/ip4/192.0.2.1/tcp/1"), addr("/ip4/192.0.2.9/tcp/1"), addr("/ip6/::/tcp/1")],
            announce: vec![addr("/ip4/192.0.2.1/tcp/1"), addr("/dns4/node.example/tcp/1")],
            swarm_key: Some(dir.path().join("gone")),
            websocket: Websocket {
                certificate: Some(dir.path().join("cert")),
                key: Some(dir.path().join("key")),
                ca: None,
            },
            control: crate::config::Control { socket: Some(dir.path().join("none/control.sock")) },
            ..fits
        };
        let key = SwarmKey::generate().unwrap();
        let found = misfits(&config, Some(&key), dir.path(), &ours);
        let words = ["swarm.key", "cert", "none", "192.0.2.9", "node.example"];
        assert_eq!(found.len(), words.len(), "{found:?}");
        for (warning, word) in found.iter().zip(words) {
            assert!(warning.contains(word), "{word}: {warning}");
        }
        // The key of another network is reported too.
        let path = dir.path().join("other");
        SwarmKey::generate().unwrap().create(&path).unwrap();
        let config = Config { swarm_key: Some(path), ..Config::defaults(Profile::Private) };
        assert!(misfits(&config, Some(&key), dir.path(), &ours)[0].contains("another key"));
    }
}
