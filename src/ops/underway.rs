//! A running operation, with its events.

use std::{fmt, future::Future, pin::Pin};
use tokio::sync::mpsc;

/// Capacity of the channel of events: enough for the hops of a look-up, some 100 bytes each. When it is full, a slow
/// reader slows the look-up down.
pub const EVENTS: usize = 256;

/// A running operation, with its events in a channel of [`EVENTS`]. The operation makes progress while this is polled,
/// and ends when this is dropped.
pub struct Underway<E, F: Future> {
    operation: Pin<Box<F>>,
    events: mpsc::Receiver<E>,
    outcome: Option<F::Output>,
}

impl<E, F: Future> fmt::Debug for Underway<E, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Underway").field("ended", &self.outcome.is_some()).finish_non_exhaustive()
    }
}

impl<E, F: Future> Underway<E, F> {
    /// Begins the operation that `start` returns for the sender of its events.
    pub fn start(start: impl FnOnce(mpsc::Sender<E>) -> F) -> Self {
        let (sender, events) = mpsc::channel(EVENTS);
        Self { operation: Box::pin(start(sender)), events, outcome: None }
    }

    /// Returns the next event. `None` once the operation has ended and all its events have been returned.
    pub async fn event(&mut self) -> Option<E> {
        if self.outcome.is_none() {
            tokio::select! {
                biased;
                Some(event) = self.events.recv() => return Some(event),
                outcome = &mut self.operation => self.outcome = Some(outcome),
            }
        }
        self.events.try_recv().ok()
    }

    /// Waits for the outcome and returns it. Drops events that have not been returned.
    pub async fn outcome(mut self) -> F::Output {
        while self.event().await.is_some() {}
        match self.outcome {
            Some(outcome) => outcome,
            None => self.operation.await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_events_come_in_order_before_the_outcome_however_many_there_are() {
        let count = 3 * EVENTS;
        let mut underway = Underway::start(|events| async move {
            for number in 0..count {
                events.send(number).await.unwrap();
            }
            "done"
        });
        for number in 0..count {
            assert_eq!(underway.event().await, Some(number));
        }
        assert_eq!(underway.event().await, None);
        assert_eq!(underway.outcome().await, "done");
    }

    #[tokio::test]
    async fn without_a_reader_of_events_the_outcome_comes_all_the_same() {
        let underway = Underway::start(|events| async move {
            for number in 0..3 * EVENTS {
                events.send(number).await.unwrap();
            }
            7
        });
        assert_eq!(underway.outcome().await, 7);
    }
}
