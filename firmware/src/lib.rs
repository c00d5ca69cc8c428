//! The player of the office jukebox: takes music from the office, plays it through the DAC, shows what plays, obeys.
#![forbid(unsafe_code)]

pub mod audio;
pub mod catalogue;
pub mod config;
pub mod fetch;
pub mod play;
pub mod store;
