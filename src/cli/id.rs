//! `dhtstore id`: peer id and addresses.

use super::{
    Context,
    error::{CliError, Code, Result},
    output,
};
use crate::{
    config::Config,
    control::{
        client::{Client, Line},
        protocol::Request,
    },
    node::no_announce,
    store::data_dir,
    transport::identity,
};
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use serde::{Deserialize, Serialize};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

/// Time to wait for the server. After that the answer comes from the files, as if the node was stopped.
const SERVER_PATIENCE: Duration = Duration::from_secs(2);

/// Arguments of `dhtstore id`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  dhtstore id                                      peer id and addresses
  dhtstore id --bootstrap                          lines for the `bootstrap` of other nodes
  dhtstore id --bootstrap | xargs -n1 ipfs bootstrap add   add them to a Kubo node
  dhtstore id --format ids                         the peer id alone")]
pub struct Args {
    /// Print one line per address for the `bootstrap` of other nodes; loopback addresses come last
    #[arg(long, conflicts_with = "format")]
    bootstrap: bool,
    #[command(flatten)]
    format: output::FormatArg,
}

/// Output of `id`. Fields are only ever added.
#[derive(Serialize, Debug)]
struct Shown {
    peer: String,
    addresses: Vec<String>,
    running: bool,
    /// `server` or `client`, and why; unknown while no server runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<()> {
    let config = context.config()?;
    let shown = match ask_server(config).await {
        Some(stat) => Shown {
            peer: stat.peer,
            addresses: stat.addresses,
            running: true,
            mode: stat.mode.map(|mode| format!("{}: {}", mode, stat.mode_why.unwrap_or_default())),
        },
        None => from_files(config)?,
    };
    let source = match shown.running {
        true => "as announced by the running server",
        false if data_dir::is_locked(&config.data_dir) => "from the configuration, because the server does not answer",
        false => "from the configuration, because no server is running",
    };
    context.notice(format_args!("addresses: {source}"));
    if !args.bootstrap {
        return match args.format.resolve(context) {
            output::Format::Ids => output::print(format_args!("{}\n", shown.peer)),
            format => output::print_object(&shown, format),
        };
    }
    let peer: PeerId = shown.peer.parse().map_err(|e| {
        CliError::other(format_args!(
            "cannot parse the peer id {} of the server: {e}; is it a different version?",
            shown.peer
        ))
    })?;
    let addresses: Vec<Multiaddr> = shown.addresses.iter().filter_map(|a| a.parse().ok()).collect();
    if addresses.is_empty() {
        return Err(CliError::other(
            "cannot print bootstrap lines: no address is known; set `announce`, or start the server",
        ));
    }
    for line in bootstrap_lines(&addresses, peer) {
        output::print(format_args!("{line}\n"))?;
    }
    Ok(())
}

/// The fields of [`crate::control::protocol::Stat`] that are shown; others may differ between versions.
#[derive(Deserialize)]
struct Running {
    peer: String,
    addresses: Vec<String>,
    /// Missing in the replies of older servers.
    mode: Option<String>,
    mode_why: Option<String>,
}

async fn ask_server(config: &Config) -> Option<Running> {
    let ask = async {
        let mut client = Client::connect(&config.control_socket()).await.ok()?;
        client.send(&Request::Stat).await.ok()?;
        match client.next().await.ok()? {
            Line::Done(stat) => serde_json::from_value(stat).ok(),
            _ => None,
        }
    };
    tokio::time::timeout(SERVER_PATIENCE, ask).await.ok().flatten()
}

fn from_files(config: &Config) -> Result<Shown> {
    let Some(keypair) = identity::load(&config.data_dir)? else {
        return Err(CliError::new(
            Code::NoDatabase,
            format_args!(
                "cannot show the peer id: {} has no identity; create one with `dhtstore init`, or name the data \
                 directory with --data-dir",
                config.data_dir.display()
            ),
        ));
    };
    let addresses = configured_addresses(config).iter().map(ToString::to_string).collect();
    Ok(Shown { peer: keypair.public().to_peer_id().to_string(), addresses, running: false, mode: None })
}

/// Returns the addresses that a node with this configuration will announce, as far as they are known before it runs.
/// These are the addresses of `announce` or, if it is empty, the listen addresses, with each wildcard replaced by this
/// machine's addresses. Those of `append_announce` follow. Those that match `no_announce` are removed.
pub(super) fn configured_addresses(config: &Config) -> Vec<Multiaddr> {
    let base = match config.announce.as_slice() {
        [] => config.effective_listen().iter().flat_map(|addr| expand(addr, &own_ips())).collect(),
        announce => announce.to_vec(),
    };
    let mut addresses: Vec<Multiaddr> = Vec::new();
    for addr in base.into_iter().chain(config.append_announce.iter().cloned()) {
        if no_announce::allows(&config.no_announce, &addr) && !addresses.contains(&addr) {
            addresses.push(addr);
        }
    }
    addresses
}

/// Appends the peer id to each address. Loopback addresses come last, because they only work on this machine.
pub(super) fn bootstrap_lines(addresses: &[Multiaddr], peer: PeerId) -> Vec<String> {
    let suffix = Protocol::P2p(peer);
    let mut lines: Vec<_> = addresses
        .iter()
        .map(|addr| match addr.iter().last() {
            Some(Protocol::P2p(_)) => (is_loopback(addr), addr.to_string()),
            _ => (is_loopback(addr), addr.clone().with(suffix.clone()).to_string()),
        })
        .collect();
    lines.sort_by_key(|(loopback, _)| *loopback);
    lines.into_iter().map(|(_, line)| line).collect()
}

/// Replaces a wildcard by the machine's addresses of the same family (IPv4 or IPv6). Drops an address with port 0: only
/// a running server knows the real port.
fn expand(addr: &Multiaddr, own: &[IpAddr]) -> Vec<Multiaddr> {
    if addr.iter().any(|p| matches!(p, Protocol::Tcp(0) | Protocol::Udp(0))) {
        return Vec::new();
    }
    let same_family: fn(&&IpAddr) -> bool = match addr.iter().next() {
        Some(Protocol::Ip4(ip)) if ip.is_unspecified() => |ip| ip.is_ipv4(),
        Some(Protocol::Ip6(ip)) if ip.is_unspecified() => |ip| ip.is_ipv6(),
        _ => return vec![addr.clone()],
    };
    own.iter().filter(same_family).filter_map(|ip| addr.replace(0, |_| Some((*ip).into()))).collect()
}

/// Returns this machine's addresses, the most useful for other machines first.
fn own_ips() -> Vec<IpAddr> {
    // If the interfaces cannot be listed, only the addresses of the routes are used.
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    by_use(routed_ips().into_iter().chain(interfaces.iter().map(if_addrs::Interface::ip)))
}

/// Returns each address once, in the given order, with the loopback addresses always added last. Drops IPv6 link-local
/// addresses: to dial one, another machine would have to name its own interface in the multiaddr.
fn by_use(found: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let link_local = |ip: &IpAddr| matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    let mut ips: Vec<IpAddr> = Vec::new();
    for ip in found.filter(|ip| !ip.is_loopback() && !link_local(ip)).chain(loopback) {
        if !ips.contains(&ip) {
            ips.push(ip);
        }
    }
    ips
}

/// Returns the source addresses of this machine's default routes. Connecting a UDP socket selects a route and sends
/// nothing. The targets are reserved for documentation (RFC 5737, RFC 3849).
fn routed_ips() -> Vec<IpAddr> {
    let targets: [(IpAddr, IpAddr); 2] = [
        (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into()),
        (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()),
    ];
    let routed = targets.into_iter().filter_map(|(from, to)| {
        let socket = UdpSocket::bind(SocketAddr::new(from, 0)).ok()?;
        socket.connect(SocketAddr::new(to, 9)).ok()?;
        Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified() && !ip.is_loopback())
    });
    routed.collect()
}

fn is_loopback(addr: &Multiaddr) -> bool {
    match addr.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.is_loopback(),
        Some(Protocol::Ip6(ip)) => ip.is_loopback(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Profile;

    fn addrs(texts: &[&str]) -> Vec<Multiaddr> {
        texts.iter().map(|t| t.parse().unwrap()).collect()
    }

    #[test]
    fn wildcards_become_own_addresses_of_the_family() {
        let own = ["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
        let one = |addr: &str| expand(&addr.parse().unwrap(), &own);
        assert_eq!(one("/ip4/0.0.0.0/tcp/4001"), addrs(&["/ip4/192.0.2.7/tcp/4001"]));
        assert_eq!(one("/ip6/::/udp/4001/quic-v1"), addrs(&["/ip6/2001:db8::7/udp/4001/quic-v1"]));
        assert_eq!(one("/ip4/10.0.0.1/tcp/1"), addrs(&["/ip4/10.0.0.1/tcp/1"]));
        assert_eq!(one("/ip4/0.0.0.0/tcp/0"), addrs(&[]));
    }

    #[test]
    fn addresses_of_interfaces_are_own_without_a_default_route_and_that_of_the_route_comes_first() {
        let ips = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        let interfaces = ips(&["127.0.0.1", "::1", "10.9.8.7", "172.17.0.1", "fe80::1", "fd00::7"]);
        let unrouted = by_use(interfaces.iter().copied());
        assert_eq!(unrouted, ips(&["10.9.8.7", "172.17.0.1", "fd00::7", "127.0.0.1", "::1"]));
        let routed = by_use(ips(&["172.17.0.1"]).into_iter().chain(interfaces));
        assert_eq!(routed, ips(&["172.17.0.1", "10.9.8.7", "fd00::7", "127.0.0.1", "::1"]));
        assert_eq!(by_use(std::iter::empty()), ips(&["127.0.0.1", "::1"]));
    }

    #[test]
    fn this_machines_interfaces_are_listed() {
        let own = own_ips();
        assert!(if_addrs::get_if_addrs().unwrap().iter().any(|interface| own.contains(&interface.ip())), "{own:?}");
    }

    #[test]
    fn announce_replaces_append_adds_no_announce_removes() {
        let mut config = Config::defaults(Profile::Private);
        config.announce = addrs(&["/dns4/a.example/tcp/4001", "/ip4/10.0.0.1/tcp/4001"]);
        config.append_announce = addrs(&["/ip4/203.0.113.1/tcp/4001", "/dns4/a.example/tcp/4001"]);
        config.no_announce = addrs(&["/ip4/10.0.0.0/ipcidr/8"]);
        assert_eq!(configured_addresses(&config), addrs(&["/dns4/a.example/tcp/4001", "/ip4/203.0.113.1/tcp/4001"]));
    }

    #[test]
    fn bootstrap_lines_end_in_the_peer_id_and_loopback_comes_last() {
        let peer = PeerId::random();
        let lines = bootstrap_lines(&addrs(&["/ip4/127.0.0.1/tcp/4001", "/ip4/192.0.2.1/tcp/4001"]), peer);
        let expected = ["/ip4/192.0.2.1/tcp/4001", "/ip4/127.0.0.1/tcp/4001"].map(|a| format!("{a}/p2p/{peer}"));
        assert_eq!(lines, expected);
    }
}
