//! The player of the office jukebox: takes music from the office, plays it through the DAC, shows what plays, obeys.
#![forbid(unsafe_code)]

pub mod audio;
pub mod catalogue;
pub mod cli;
pub mod clock;
pub mod config;
pub mod dial;
pub mod doctor;
pub mod driver;
pub mod fetch;
pub mod metered;
pub mod mqtt;
pub mod netlink;
pub mod panel;
pub mod play;
mod radio;
pub mod setup;
pub mod socket;
pub mod store;
pub mod systemd;
