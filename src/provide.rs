//! Keeping our own CIDs announced: what is due (pure, [`plan`]), and doing it ([`reprovider`]).

pub mod cids;
pub mod deliver;
pub mod plan;
pub mod reprovider;
pub mod verify;
