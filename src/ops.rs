//! What a running process can be asked: operations with typed arguments and answers. The control socket is one door to them.

pub mod network;
pub mod verify;
