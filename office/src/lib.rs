//! The office end of the jukebox: what `jukebox-office` does, as functions that tests can call.

pub mod config;
pub mod export;
pub mod player;
pub mod publish;
pub mod serve;
pub mod show;
pub mod verify;
