//! Loads a renewed certificate while the node runs (NET-5), and warns about problems of the one in use.

use crate::peers::Peers;
use dhtstore_host::clock::Clock;
use dhtstore_transport::{
    addresses::is_secure_websocket,
    certificate::{CertificateError, Certificates, RENEWAL_CHECK, Tls},
};
use libp2p::{Multiaddr, multiaddr::Protocol};
use std::sync::Arc;
use tracing::{info, warn};

/// Reloads the certificate from its files.
#[derive(Debug)]
pub(crate) struct Renewal {
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) listen: Vec<Multiaddr>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Renewal {
    /// Checks the files once a minute. Runs until the node stops.
    pub(crate) async fn keep_fresh(self: Arc<Self>) {
        self.warn_of_uncovered_addresses();
        // The complaint logged last. It is logged only once, although every check finds it again until the operator
        // acts.
        let mut said: Option<String> = None;
        loop {
            let complaint = match self.renew().await {
                Ok(_) => self.certificates.current().complaint(self.clock.wall()).map(str::to_owned),
                Err(error) => Some(format!("cannot reload the certificate, the current one stays in use: {error}")),
            };
            if complaint != said {
                if let Some(complaint) = &complaint {
                    warn!("{complaint}");
                }
                said = complaint;
            }
            tokio::time::sleep(RENEWAL_CHECK).await;
        }
    }

    /// See [`crate::Node::renew_certificate`].
    pub(crate) async fn renew(&self) -> Result<bool, CertificateError> {
        let certificates = self.certificates.clone();
        // The task fails only at shutdown.
        let renewed = tokio::task::spawn_blocking(move || certificates.renew()).await.unwrap_or(Ok(false))?;
        if renewed {
            let until = self.certificates.current().valid_until();
            info!(valid_until = until.map(|time| time.to_string()), "renewed certificate of WebSockets loaded");
        }
        Ok(renewed)
    }

    /// Warns if no announced address names a host of the certificate. A peer that dials a secure WebSocket expects a
    /// certificate for the host in the address, so then every such dial fails.
    fn warn_of_uncovered_addresses(&self) {
        let listener = self.listen.iter().find(|addr| is_secure_websocket(addr));
        let tls = self.certificates.current();
        if let Some(listener) = listener
            && let Some(hint) = uncovered(&tls, &self.peers.addresses.announced(), listener)
        {
            warn!("{hint}");
        }
    }
}

fn uncovered(tls: &Tls, announced: &[Multiaddr], listener: &Multiaddr) -> Option<String> {
    let names = tls.names()?;
    if announced.iter().any(|addr| is_secure_websocket(addr) && names.cover(addr)) {
        return None;
    }
    let port = listener.iter().find_map(|part| match part {
        Protocol::Tcp(port) => Some(port),
        _ => None,
    })?;
    Some(format!(
        "no announced address names a host of the certificate ({names}), so peers cannot connect over secure \
         WebSockets; other transports still work; set append_announce = [\"/dns/{}/tcp/{port}/tls/ws\"] with the port \
         that other peers can reach",
        names.example()
    ))
}
