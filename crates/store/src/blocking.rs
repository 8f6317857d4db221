//! Runs work that waits for the disk on threads that may block.

use super::{StoreError, engine::panic_text};

/// Runs `call` on a thread that may block.
pub async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(call).await {
        Ok(outcome) => outcome,
        Err(error) if error.is_panic() => {
            Err(StoreError::Database(format!("panicked: {}", panic_text(error.into_panic().as_ref())).into()))
        }
        Err(_) => Err(StoreError::Database("the process is ending".into())),
    }
}
