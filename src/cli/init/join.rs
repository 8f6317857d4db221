//! The commands with which a Kubo node joins a private network, ready for `sh`. `tests/interop` runs them as printed
//! against Kubo 0.43.1; other versions were not tested.

use crate::{config::Config, transport::swarm_key::SwarmKey};
use std::fmt::Write;

/// Returns a shell script whose lines can also be typed one by one. `bootstrap` has our addresses with `/p2p/<id>`.
pub(super) fn kubo_commands(key: &SwarmKey, bootstrap: &[String], config: &Config) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "\
# Makes a Kubo node join the private network of this dhtstore node (swarm key fingerprint {fingerprint}).
# For Kubo 0.38 or newer. Stop the daemon, run this script as its user, then start the daemon again.
# This script holds the network's key: keep it secret.
set -eu
IPFS_PATH=\"${{IPFS_PATH:-$HOME/.ipfs}}\"; export IPFS_PATH
umask 077
cat > \"$IPFS_PATH/swarm.key\" <<'KEY'
{key}KEY
# Remove the public network's defaults. (Kubo does not start a private swarm with AutoConf on.)
ipfs config profile apply autoconf-off
ipfs config --bool AutoConf.Enabled false
ipfs bootstrap rm --all
",
        fingerprint = key.fingerprint(),
        key = key.to_file(),
    );
    let (local, remote): (Vec<_>, Vec<_>) = bootstrap.iter().partition(|line| is_local(line));
    if remote.is_empty() {
        text.push_str("# The address of this machine is not known; use it instead of the one below:\n");
    }
    let lines = if remote.is_empty() { &local } else { &remote };
    for line in lines {
        let _ = writeln!(text, "ipfs bootstrap add {line}");
    }
    if lines.is_empty() {
        text.push_str("# ipfs bootstrap add ADDRESS   (with the node running, `dhtstore id --bootstrap` prints it)\n");
    }
    let _ = write!(
        text,
        "\
# Ask only the DHT, not the public delegated routers.
ipfs config Routing.Type dht
# Disable what a private swarm cannot use.
ipfs config --bool AutoTLS.Enabled false
ipfs config --bool Swarm.Transports.Network.Websocket false
# Send no telemetry. Kubo 0.37 to 0.43.0 send it to Kubo's developers 15 minutes after the start, other versions if an
# endpoint is configured or built in.
ipfs config Plugins.Plugins.telemetry.Config.Mode off
# dhtstore keeps records for {ttl}, so announce them again every {interval} (Kubo's default is 22h).
ipfs config Provide.DHT.Interval {interval}
# With this variable set, the daemon refuses to start without the key:
#   LIBP2P_FORCE_PNET=1 ipfs daemon
# Another dhtstore node joins with this swarm.key in its data directory and these addresses in its `bootstrap`.
",
        ttl = go_duration(config.records.ttl),
        interval = go_duration(config.reprovide.interval),
    );
    text
}

/// Writes a duration as Go reads it: without days and spaces.
fn go_duration(duration: std::time::Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let mut text = String::new();
    for (count, unit) in [(hours, "h"), (minutes, "m"), (seconds, "s")] {
        if count > 0 {
            let _ = write!(text, "{count}{unit}");
        }
    }
    if text.is_empty() { "1s".into() } else { text }
}

fn is_local(line: &str) -> bool {
    line.starts_with("/ip4/127.") || line.starts_with("/ip6/::1/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Profile;
    use std::time::Duration;

    #[test]
    fn durations_are_written_as_go_reads_them() {
        for (seconds, text) in
            [(36_000, "10h"), (79_200, "22h"), (5_400, "1h30m"), (0, "1s"), (172_800, "48h"), (61, "1m1s")]
        {
            assert_eq!(go_duration(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn loopback_is_offered_only_where_there_is_nothing_else() {
        let key = SwarmKey::generate().unwrap();
        let config = Config::defaults(Profile::Private);
        let (lan, local) = ("/ip4/192.0.2.1/tcp/4001/p2p/x".to_owned(), "/ip4/127.0.0.1/tcp/4001/p2p/x".to_owned());
        let both = kubo_commands(&key, &[lan.clone(), local.clone()], &config);
        assert!(both.contains(&format!("ipfs bootstrap add {lan}")) && !both.contains(&local));
        assert!(
            kubo_commands(&key, std::slice::from_ref(&local), &config).contains(&format!("ipfs bootstrap add {local}"))
        );
        assert!(both.contains("ipfs config Provide.DHT.Interval 10h"));
    }

    #[test]
    fn members_of_a_private_network_report_to_nobody() {
        let key = SwarmKey::generate().unwrap();
        let text = kubo_commands(&key, &[], &Config::defaults(Profile::Private));
        assert!(text.contains("\nipfs config Plugins.Plugins.telemetry.Config.Mode off\n"));
    }
}
