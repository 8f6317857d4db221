//! Keeping our own CIDs announced.
