//! tokio-cron-scheduler wiring: which job looks when. No logic.
