//! Takes a renewed certificate up while the node runs (NET-5), and says what is wrong with the one in use.

use crate::peers::Peers;
use dhtstore_host::clock::Clock;
use dhtstore_transport::{
    addresses::is_secure_websocket,
    certificate::{CertificateError, Certificates, RENEWAL_CHECK, Tls},
};
use libp2p::{Multiaddr, multiaddr::Protocol};
use std::sync::Arc;
use tracing::{info, warn};

/// The certificate in use, and its files.
#[derive(Debug)]
pub(crate) struct Renewal {
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) listen: Vec<Multiaddr>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Renewal {
    /// Reads the files once a minute. Runs until the node stops.
    pub(crate) async fn keep_fresh(self: Arc<Self>) {
        self.warn_of_uncovered_addresses();
        // Each complaint once: it holds until somebody does something about it.
        let mut said: Option<String> = None;
        loop {
            let complaint = match self.renew().await {
                Ok(_) => self.certificates.current().complaint(self.clock.wall()).map(str::to_owned),
                Err(error) => Some(format!("the certificate in use stays: {error}")),
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

    /// Reads the files now; whether they had changed. A certificate that cannot be used leaves the one in use where it is.
    pub(crate) async fn renew(&self) -> Result<bool, CertificateError> {
        let certificates = self.certificates.clone();
        // A task that is gone has been told to end.
        let renewed = tokio::task::spawn_blocking(move || certificates.renew()).await.unwrap_or(Ok(false))?;
        if renewed {
            let until = self.certificates.current().valid_until();
            info!(valid_until = until.map(|time| time.to_string()), "certificate of WebSockets taken up anew");
        }
        Ok(renewed)
    }

    /// Who dials a secure WebSocket asks for a certificate of the host in the address: where no announced address names
    /// one, nobody gets through.
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
        "no announced address names a host that the certificate is for ({names}), so nobody trusts it; set \
         append_announce = [\"/dns/{}/tcp/{port}/tls/ws\"] with the port that others reach",
        names.example()
    ))
}
