//! The office end of the jukebox: what `jukebox-office` does, as functions that tests can call.

pub mod publish;
pub mod show;
pub mod verify;
