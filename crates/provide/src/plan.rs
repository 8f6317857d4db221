//! The decisions of a sweep: which keys are due ([`cycle`]), which servers are in a region ([`explore`]), and which
//! server gets which key ([`allocate`]). Pure: no IO, no clock, no randomness.
//!
//! A sweep works by region of the keyspace and not by CID. A few look-ups find all servers of a region, and each of its
//! CIDs is then allocated to its k closest servers without another look-up.

pub mod allocate;
pub mod cycle;
pub mod explore;
