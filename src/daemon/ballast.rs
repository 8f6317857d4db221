//! Keeps the ballast of a data directory: space that a start on a full disk gives up, see [`ballast`].

use crate::store::ballast;
use std::{path::PathBuf, time::Duration};

/// Time between two attempts to make missing ballast.
const EVERY: Duration = Duration::from_secs(10);

/// The ballast of one data directory.
pub(super) struct Ballast {
    /// The data directory.
    pub dir: PathBuf,
    /// `store.reserve`, in bytes.
    pub reserve: u64,
    /// Whether this start has given ballast up.
    pub gave_up: bool,
}

impl Ballast {
    /// If this start gave ballast up, tries once to make it again, even if less than the reserve stays free. After that,
    /// tries every 10 s to make what is missing, as far as the reserve stays free. Never returns.
    pub async fn keep(mut self) {
        loop {
            let (dir, reserve, all) = (self.dir.clone(), self.reserve, std::mem::take(&mut self.gave_up));
            let made = tokio::task::spawn_blocking(move || ballast::make(&dir, reserve, all)).await;
            if let Ok(Err(error)) = made {
                tracing::debug!(%error, "cannot make ballast yet; tried again in 10 s");
            }
            tokio::time::sleep(EVERY).await;
        }
    }
}
