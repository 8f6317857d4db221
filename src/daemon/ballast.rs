//! Keeps the ballast of a data directory: space that a start on a full disk can give up, see [`ballast`].

use crate::store::ballast;
use std::{path::PathBuf, time::Duration};

/// How often missing ballast is made again, if there is space.
const EVERY: Duration = Duration::from_secs(10);

/// The ballast of one data directory.
pub(super) struct Ballast {
    /// The data directory.
    pub dir: PathBuf,
    /// `store.reserve`, in bytes.
    pub reserve: u64,
    /// This start has given ballast up.
    pub gave_up: bool,
}

impl Ballast {
    /// Takes back what this start has left of it, then makes it again once there is space. Never returns.
    pub async fn keep(mut self) {
        loop {
            let (dir, reserve, all) = (self.dir.clone(), self.reserve, std::mem::take(&mut self.gave_up));
            let made = tokio::task::spawn_blocking(move || ballast::make(&dir, reserve, all)).await;
            if let Ok(Err(error)) = made {
                tracing::debug!(%error, "ballast cannot be made yet");
            }
            tokio::time::sleep(EVERY).await;
        }
    }
}
